"""The schema of params.yaml, one module per section; its objects are unpacked in `fcos.commands`."""
