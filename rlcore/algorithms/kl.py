"""Per-token estimates of KL(policy || reference) from the logprobs of tokens that the policy sampled.

John Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). With r = reference / policy:
k1 = -log r is unbiased but noisy and may be negative; k2 = (log r)^2 / 2 is biased, and its gradient is that
of the KL; k3 = r - 1 - log r is unbiased and never negative (GRPO's choice, arXiv 2402.03300, equation 4).
"""

from __future__ import annotations

import torch

# exp(20) is 5e8: far past anything a trained policy shows, small enough for sums in float32.
MAX_LOG_RATIO = 20.0


def kl_k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Both [...], same shape; returns that shape."""
    return logprobs - reference_logprobs


def kl_k2(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Both [...], same shape; returns that shape."""
    return 0.5 * (logprobs - reference_logprobs) ** 2


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Both [...], same shape; returns that shape, never negative."""
    log_ratio = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log_ratio.exp() - 1.0 - log_ratio
