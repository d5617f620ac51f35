"""Engines that run the trainings of a study: this machine, SLURM or Ray."""
