"""COCO numbers with their uncertainty, for any detector's results; free of torch, so that reports can use it."""
