"""The models that the project builds itself."""
