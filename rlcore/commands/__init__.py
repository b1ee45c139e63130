"""The commands of `rlcore`, one file each: their parsers and printing. The work is done by libraries."""
