"""Finds what reasoning claims about a voice, and checks the claims against what was measured."""
