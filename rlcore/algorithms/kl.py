"""Per-token estimates of KL(policy || reference) from the log-probabilities of tokens that the policy
sampled.

John Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). With r = reference / policy:
k1 = -log r is unbiased but noisy and may be negative; k2 = (log r)^2 / 2 is biased, and its gradient is that
of the KL; k3 = r - 1 - log r is unbiased and never negative (GRPO's choice, arXiv 2402.03300, equation 4).

As a penalty in the loss it is the *gradient* that counts: that of k1 is zero in expectation, so k1 belongs in
the reward; k2's is the KL's on policy; k3's is another divergence's, near it while the two policies are. One
token that the policy gave up weighs e^10 and more in k3; `k3_capped` bounds it.

This module does not import torch, so that the configuration can read `KL_ESTIMATORS` and stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

MAX_K3 = 10.0
"""Largest estimate of `k3_capped`, in nats."""

# exp(20) is 5e8: far past anything a trained policy shows, small enough for sums in float32.
MAX_LOG_RATIO = 20.0


class KLEstimator(Protocol):
    """A KL estimator is a function from log-probabilities of policy and reference to estimates in nats.

    Both arguments have the same shape [...], and the function returns that shape.
    """

    def __call__(self, logprobs: torch.Tensor, reference_logprobs: torch.Tensor, /) -> torch.Tensor: ...


def kl_k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Returns log(policy / reference) of each token, which may be negative."""
    return logprobs - reference_logprobs


def kl_k2(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Returns half the squared log(policy / reference) of each token."""
    return 0.5 * (logprobs - reference_logprobs) ** 2


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Returns r - 1 - log r of each token with r = reference / policy, which is never negative."""
    log_ratio = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log_ratio.exp() - 1.0 - log_ratio


def kl_k3_capped(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Returns k3 of each token up to `MAX_K3`, past which there is no gradient (verl's `low_var_kl`)."""
    return kl_k3(logprobs, reference_logprobs).clamp(max=MAX_K3)


KL_ESTIMATORS: dict[str, KLEstimator] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3, "k3_capped": kl_k3_capped}
"""The KL estimators by their names in `algorithm.kl_estimator`."""
