"""One module a command: it reads files, calls, writes files. DVC owns what they write."""
