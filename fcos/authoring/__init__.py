"""Create a study from a folder of the user's data: `fcos study new`."""
