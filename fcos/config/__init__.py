"""The schema of params.yaml, one module a section. Objects made here stop at `fcos.commands`."""
