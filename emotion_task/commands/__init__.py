"""What `emotion` can do, a file a kind of command."""
