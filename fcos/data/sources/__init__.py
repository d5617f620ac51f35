"""Where images come from: each source yields the same plain description, which `assemble` checks and writes."""
