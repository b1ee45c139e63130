"""What reasoning claims about a voice, and whether that was measured."""
