"""Build tables, figures and two pages from the files of the runs alone, without running a network."""
