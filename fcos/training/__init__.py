"""Training; start reading at `step`, which calls all parts of a training step."""
