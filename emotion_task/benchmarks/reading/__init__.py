"""Parts that the readers of benchmarks share."""
