"""One step of reinforcement learning, in the order of the data."""
