"""What a study is on disk, and what its stages share: paths, data, networks, checks of files."""
