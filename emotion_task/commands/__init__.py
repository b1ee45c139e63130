"""The commands of `emotion`, one file per command: parsers and printing."""
