"""Per-token estimates of KL(policy || reference) from the logprobs of tokens that the policy sampled.

John Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). With r = reference / policy:
k1 = -log r is unbiased but noisy and may be negative; k2 = (log r)^2 / 2 is biased, and its gradient is that
of the KL; k3 = r - 1 - log r is unbiased and never negative (GRPO's choice, arXiv 2402.03300, equation 4).

As a penalty in the loss it is the *gradient* that counts: that of k1 is zero in expectation, so k1 belongs in
the reward; k2's is the KL's on policy; k3's is another divergence's, near it while the two policies are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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


KL_ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "k1": kl_k1,
    "k2": kl_k2,
    "k3": kl_k3,
}
"""Setting to estimator."""


def sequence_kl(logprobs: np.ndarray, reference_logprobs: np.ndarray, estimator: str) -> float:
    """The estimate for a whole sequence, for a penalty in its reward: the sum over its tokens, nats.

    Both [T]. Summed because the log-probability of a sequence is the sum of its tokens'.
    """
    pair = [torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in (logprobs, reference_logprobs)]
    return float(KL_ESTIMATORS[estimator](*pair).sum())
