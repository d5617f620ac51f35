"""A study of one's own folder: `fcos study new`."""
