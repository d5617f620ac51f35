"""Training: `step` is its table of contents."""
