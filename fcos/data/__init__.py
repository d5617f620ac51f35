"""Images and their boxes: preparing them, and feeding them to the network."""
