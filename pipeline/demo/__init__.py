"""A small web of our own to harvest: 298 CC0 photographs on pages with real-world trouble."""
