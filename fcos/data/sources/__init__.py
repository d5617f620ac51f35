"""Sources of images; each returns a description of one type, which `assemble` checks and writes."""
