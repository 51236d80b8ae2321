"""The command line: one file per command, one look. Nothing of the router imports it."""
