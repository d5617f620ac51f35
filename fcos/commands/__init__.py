"""One module per command: it reads files, calls functions and writes files, which DVC manages."""
