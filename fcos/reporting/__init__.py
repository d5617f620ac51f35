"""From the files of the runs to tables, figures and two pages: no network, no number that is not in a file."""
