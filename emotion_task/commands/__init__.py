"""What `emotion` can do, one file per command: parsers and printing."""
