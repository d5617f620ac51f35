"""Results files of any detector, and the ground truth that they are scored against."""
