"""Asks models a benchmark's questions, keeps their answers and reports the figures."""
