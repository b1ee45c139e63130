"""Synthetic speech: what is said and how (`design`), espeak-ng, and the rendering of a voice."""
