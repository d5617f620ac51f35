"""The files of a study, and the code that its stages share: paths, data, networks and checks of files."""
