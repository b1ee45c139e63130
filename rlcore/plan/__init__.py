"""Predicts what a run would take: memory of each GPU, seconds of each phase, the best split of GPUs.

The prediction is arithmetic on a configuration and the sizes of a model and a machine; docs/guides/plan.md
has the formulas and their sources. It needs neither Ray, vLLM, DeepSpeed nor weights.
"""
