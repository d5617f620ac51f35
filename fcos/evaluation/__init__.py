"""Running a trained network once, and scoring what it said many times."""
