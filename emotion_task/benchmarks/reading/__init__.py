"""What the readers of benchmarks share."""
