"""Prepare images and their boxes, and load them for the network."""
