"""Run the active study under DVC, and report the state of its stages and the time left."""
