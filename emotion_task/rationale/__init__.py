"""Tests whether a model's label rests on its reasoning: the claims are swapped, and the label may move."""
