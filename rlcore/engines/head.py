"""Log-probabilities and entropies straight from a model's output layer, a bounded number of logits at a time.

This module knows hidden states, the head's weight and target tokens; not groups, nor how hidden states come
about (`rlcore.engines.logprobs`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

LOGITS_PER_CHUNK = 16 * 1024 * 1024
LOGITS_PER_CHUNK_ON_GPU = 4 * LOGITS_PER_CHUNK
"""Logits that exist at once (64 MB and 256 MB in float32); more are recomputed in the backward pass, chunk by
chunk. Each chunk reads the head's weight and adds to its gradient, so that few are too few for a GPU."""


def token_logprobs(
    head: nn.Linear, hidden: Tensor, targets: Tensor, temperature: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities and entropies, float32 [N], of `targets` [N] after hidden states [N, H].

    The distribution is softmax(`head`(hidden) / `temperature`). `entropy_grad` lets the entropies carry a
    gradient. The head is called once, however many tokens there are.
    """
    _switched(head)
    num_logits = LOGITS_PER_CHUNK if hidden.device.type == "cpu" else LOGITS_PER_CHUNK_ON_GPU
    size = max(1, num_logits // head.out_features)
    logprobs, entropies = head(hidden, targets, temperature, entropy_grad, size)
    return logprobs.float(), entropies.float()


def multiply_in_float32(head: nn.Linear) -> None:
    """Makes `token_logprobs` keep float32 logits of this head, though its operands are rounded to bfloat16 as
    ever: what vLLM does with `head_dtype` float32."""
    _switched(head).in_float32 = True


def _switched(head: nn.Linear) -> _ForwardWithTargets:
    """Lets the head be called with targets too, for good. As a module, and once: that is what gathers its
    weight under ZeRO-3, where ranks with more tokens than others must not ask for it more often."""
    if isinstance(head.forward, _ForwardWithTargets):
        return head.forward
    switched = _ForwardWithTargets(head)
    head.forward = switched  # type: ignore[assignment, method-assign]  # one layer's
    return switched


class _ForwardWithTargets:
    """The forward of one output layer: hidden states alone give logits, as before."""

    def __init__(self, head: nn.Linear):
        self._head, self._plain = head, head.forward
        self.in_float32 = False

    def __call__(
        self,
        hidden: Tensor,
        targets: Tensor | None = None,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        size: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if targets is None:
            return self._plain(hidden)
        head = self._head
        both: tuple[Tensor, Tensor] = HeadLogprobs.apply(
            hidden, head.weight, head.bias, targets, temperature, entropy_grad, size, self.in_float32
        )
        return both


class _Context(FunctionCtx):
    """The context between `HeadLogprobs.forward` and `backward`; for annotations alone."""

    dtypes: tuple[torch.dtype, torch.dtype]
    temperature: float
    entropy_grad: bool
    size: int
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor | None]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps None too, which torch's own annotation leaves out."""


class HeadLogprobs(torch.autograd.Function):
    """Hidden states [N, H], the head's weight [V, H] and bias ([V] or None) and targets [N] become
    log-probabilities and entropies [N] of softmax(logits / temperature).

    `size` rows of logits exist at a time, in float32 or what is finer, and are computed again in the backward
    pass where there are more. Under autocast operands and product are rounded as other layers' are; with
    `in_float32` the operands alone. The gradient is by hand: beside the logits one tensor of their size
    exists, where autograd's own formulas need four.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy_grad: bool,
        size: int,
        in_float32: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Computes log-probabilities and entropies [N], and keeps what `backward` needs."""
        dtype = _compute_dtype(hidden, weight)
        ctx.dtypes = dtype, torch.promote_types(dtype, torch.float32) if in_float32 else dtype
        ctx.temperature, ctx.entropy_grad, ctx.size = temperature, entropy_grad, size
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        kept: Tensor | None = None
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = _rounded(hidden, ctx.dtypes), _rounded(weight, ctx.dtypes)
            for h_chunk, t_chunk in zip(h.split(size), targets.split(size), strict=True):
                logits = _logits(h_chunk, w, bias, temperature)
                log_total = logits.logsumexp(-1)
                # H = log Z - sum_v p_v logit_v
                probabilities = (logits - log_total[:, None]).exp_()
                entropies = log_total - torch.einsum("nv,nv->n", probabilities, logits)
                logprobs = logits.gather(-1, t_chunk[:, None])[:, 0] - log_total
                parts.append((logprobs, entropies, log_total))
                kept = logits if len(targets) <= size and any(ctx.needs_input_grad) else None
        logprobs, entropies, log_total = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, bias, targets, log_total, entropies, kept)
        if not entropy_grad:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: _Context, grad_logprobs: Tensor, grad_entropies: Tensor) -> tuple[Tensor | None, ...]:
        """Computes the gradients: d logprob / d logit_v = [v = target] - p_v;  d H / d logit_v = -p_v (log
        p_v + H)."""
        hidden, weight, bias, targets, log_total, entropies, kept = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if of_hidden else None
        finer = torch.promote_types(weight.dtype, torch.float32)  # chunks add up
        grad_weight = torch.zeros_like(weight, dtype=finer) if of_weight else None
        grad_bias = torch.zeros_like(bias, dtype=finer) if bias is not None and of_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = _rounded(hidden, ctx.dtypes), _rounded(weight, ctx.dtypes)
            for start in range(0, len(targets), ctx.size):
                rows = slice(start, start + ctx.size)
                logits = _logits(h[rows], w, bias, ctx.temperature) if kept is None else kept
                log_probabilities = logits - log_total[rows, None]
                if ctx.entropy_grad:
                    probabilities = log_probabilities.exp()
                    scale = log_probabilities.add_(entropies[rows, None]).mul_(grad_entropies[rows, None])
                    grad = probabilities.mul_(scale.add_(grad_logprobs[rows, None]).neg_())
                else:
                    grad = log_probabilities.exp_().mul_(-grad_logprobs[rows, None])
                grad.scatter_add_(-1, targets[rows, None], grad_logprobs[rows, None])
                grad = grad.div_(ctx.temperature).to(w.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = grad @ w
                if grad_weight is not None and grad_weight.dtype == grad.dtype:
                    grad_weight.addmm_(grad.t(), h[rows])
                elif grad_weight is not None:
                    grad_weight += grad.t() @ h[rows]
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = None if bias is None or grad_bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _rounded(operand: Tensor, dtypes: tuple[torch.dtype, torch.dtype]) -> Tensor:
    """Returns an operand rounded to the first dtype, to be multiplied in the second."""
    return operand.to(dtypes[0]).to(dtypes[1])


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Returns the dtype of the head's matrix products, as autocast would have them."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """Returns logits [n, V] in float32, or in what is finer."""
    logits = nn.functional.linear(hidden, weight, None if bias is None else bias.to(weight.dtype))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits.div_(temperature)
