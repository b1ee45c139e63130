"""What a run would take, before it runs: memory of each GPU, seconds of each phase, the best split of GPUs.

Arithmetic on a configuration, a model's sizes and a machine's; formulas and sources in docs/plan.md.
Needs neither Ray, vLLM nor DeepSpeed, and no weights.
"""
