"""Runs the prosody perception test: what a model hears, by forced choice, against what was measured."""
