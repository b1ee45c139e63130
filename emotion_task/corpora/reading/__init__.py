"""The part that the readers of corpora share: the walk over a folder, and the decoding of containers."""
