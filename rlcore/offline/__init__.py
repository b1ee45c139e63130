"""Training from files, without rollouts: Ray Train jobs whose workers are ranks of the learner's engine."""
