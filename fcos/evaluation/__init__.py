"""Run a trained network once, then score its stored outputs as often as needed."""
