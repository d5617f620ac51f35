"""A study under DVC: what runs, what is done, and how long the rest takes."""
