"""Every speed or size claim of the README as a command, measured beside the peer."""
