"""Checks of one GPU machine in ten minutes: what of rlcore works on it, and how fast.

    python -m benchmarks.gpu_check [--parts NAME ...] [--device cpu] [--json FILE]

Each part (`benchmarks.gpu_check.parts`) is a process of its own with its own time limit: what crashes or
hangs costs itself alone, and what it had measured until then stays. Nothing is downloaded: models are made
up. Parts whose packages are not installed are left out by name, so torch, transformers and rlcore are enough
to begin. `--device cpu` runs the same code with tiny shapes.
"""
