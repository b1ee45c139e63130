"""Kills and stops what a run is made of, in every state that a run can be in, and compares what comes out
with a run that was left alone."""
