"""Everything that a run leaves behind."""
