"""rlcore: distributed reinforcement learning for speech language models on Ray, vLLM and DeepSpeed.

Importing this package, `rlcore.config` or `rlcore.algorithms` loads none of the heavy libraries.
"""

__version__ = "0.1.0"
