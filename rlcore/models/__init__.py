"""Models as Hugging Face folders hold them: families, loading, names, media."""
