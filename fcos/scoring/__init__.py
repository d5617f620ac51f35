"""COCO metrics with their uncertainty for any detector's results; nothing here imports torch, as reports use it."""
