"""The whole line, from recordings to a trained model."""
