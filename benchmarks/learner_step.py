"""Measures what one gradient of the policy costs, in two ways.

Ours packs groups, runs prompts and audio once and computes logits in chunks. The usual way pads rows, runs
the tower for every sample and computes full logits.

    python -m benchmarks.learner_step [--quick] [--json FILE] [--gate]

Both ways compute the same loss, sum of advantage * logprob over the same groups (K = 8, 10 s of audio, 32 to
160 completion tokens), from the same mel features; the printed norm of the gradient shows that. Each runs in
a process of its own, on one thread. Memory is the peak above the loaded weights, gradients included.

Goal, on the 100M model with a vocabulary of 152k: 3 times the throughput, a quarter of the memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report import finish, parse_arguments

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

Work = tuple[dict[str, "torch.Tensor"], np.ndarray, list[np.ndarray], np.ndarray]
"""Mel features, prompt [P], completions [K] of [T] and advantages [K] of one group."""

NUM_SAMPLES = 8
AUDIO_SECONDS = 10
MEL_FRAMES = 100 * AUDIO_SECONDS
AUDIO_TOKENS = 25 * AUDIO_SECONDS
TEXT_TOKENS = 60
COMPLETION_TOKENS = (32, 160)
PLACEHOLDER = 7


@dataclass(frozen=True, kw_only=True)
class Size:
    """Holds a model's dimensions, and how much work is done with that model."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    encoder_layers: int
    num_groups: int
    num_runs: int


SIZES = {
    "tiny": Size(vocab_size=800, hidden_size=128, num_layers=4, encoder_layers=2, num_groups=8, num_runs=5),
    "100M": Size(
        vocab_size=152_064, hidden_size=256, num_layers=16, encoder_layers=6, num_groups=1, num_runs=3
    ),
}


def make_model(size: Size) -> Qwen2AudioForConditionalGeneration:
    """Returns a random Qwen2-Audio of this size, with its tower and projector frozen."""
    import torch
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    heads = size.hidden_size // 64
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "encoder_layers": size.encoder_layers,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": 4 * size.hidden_size,
            "d_model": size.hidden_size,
            "max_source_positions": MEL_FRAMES // 2,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": size.vocab_size,
            "hidden_size": size.hidden_size,
            "intermediate_size": size.hidden_size * 8 // 3,
            "num_hidden_layers": size.num_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
        },
        audio_token_index=PLACEHOLDER,
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config).float().eval()
    for module in (model.model.audio_tower, model.model.multi_modal_projector):
        module.requires_grad_(False)
    return model


def make_groups(size: Size) -> list[Work]:
    """Makes random groups, the same for the same size."""
    import torch

    rng = np.random.default_rng(0)

    def text(count: int) -> np.ndarray:
        return rng.integers(10, size.vocab_size, size=count)

    groups = []
    for _ in range(size.num_groups):
        features = {
            "input_features": torch.from_numpy(rng.normal(size=(1, 128, MEL_FRAMES)).astype(np.float32)),
            "feature_attention_mask": torch.ones(1, MEL_FRAMES, dtype=torch.long),
        }
        prompt = np.concatenate(
            [text(TEXT_TOKENS // 2), np.full(AUDIO_TOKENS, PLACEHOLDER), text(TEXT_TOKENS // 2)]
        )
        lengths = rng.integers(*COMPLETION_TOKENS, size=NUM_SAMPLES, endpoint=True)
        groups.append((features, prompt, [text(n) for n in lengths], rng.normal(size=NUM_SAMPLES)))
    return groups


def usual_loss(model: Qwen2AudioForConditionalGeneration, groups: list[Work]) -> torch.Tensor:
    """Returns the loss the usual way: one right-padded row per sample through the model's own forward, with
    logits of every position."""
    import torch

    rows = [
        (features, np.concatenate([prompt, tokens]), len(prompt), advantage)
        for features, prompt, completions, advantages in groups
        for tokens, advantage in zip(completions, advantages, strict=True)
    ]
    longest = max(len(ids) for _, ids, _, _ in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    attention_mask, weight = torch.zeros_like(input_ids), torch.zeros(len(rows), longest)
    for row, (_, ids, start, advantage) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.from_numpy(ids)
        attention_mask[row, : len(ids)] = 1
        weight[row, start : len(ids)] = float(advantage)
    media = {name: torch.cat([features[name] for features, *_ in rows]) for name in rows[0][0]}
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **media).logits
    logprobs = logits[:, :-1].float().log_softmax(-1)
    return (logprobs.gather(-1, input_ids[:, 1:, None])[..., 0] * weight[:, 1:]).sum()


def our_loss(model: Qwen2AudioForConditionalGeneration, groups: list[Work]) -> torch.Tensor:
    """Returns the loss by the learner's own function, with the tower run once per prompt, as in the
    rollout."""
    import torch

    from rlcore.engines.logprobs import TokenGroup, completion_logprobs
    from rlcore.models.hf_model import embed_media

    encoded = []
    for features, prompt, completions, _ in groups:
        with torch.no_grad():
            audio = embed_media(model, features)[0].numpy()
        encoded.append(
            TokenGroup(
                prompt_token_ids=prompt, token_ids=tuple(completions), media_inputs={"audio_embeds": audio}
            )
        )
    scored = completion_logprobs(model, encoded)
    advantages = torch.from_numpy(np.concatenate([a for *_, a in groups])).float()
    return (scored.logprobs * advantages[:, None]).sum()


LOSSES = {"usual": usual_loss, "ours": our_loss}


def work(size_name: str, variant: str) -> None:
    """Measures one variant in this process and prints its row as JSON."""
    import torch

    torch.set_num_threads(1)
    size = SIZES[size_name]
    model, groups = make_model(size), make_groups(size)
    parameters = sum(p.numel() for p in model.parameters())
    encoder_rows: list[int] = []
    model.model.audio_tower.register_forward_pre_hook(
        lambda module, args, kwargs: encoder_rows.append(len((args or tuple(kwargs.values()))[0])),
        with_kwargs=True,
    )
    before, seconds = _resident_mb(), []
    for _ in range(size.num_runs):
        model.zero_grad(set_to_none=True)
        encoder_rows.clear()
        start = time.perf_counter()
        LOSSES[variant](model, groups).backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    num_tokens = sum(len(tokens) for _, _, completions, _ in groups for tokens in completions)
    row = {
        "model": size_name,
        "variant": variant,
        "parameters_M": parameters / 1e6,
        "seconds": statistics.median(seconds),
        "tokens_per_second": num_tokens / statistics.median(seconds),
        "peak_MB": peak - before,
        "encoder_calls_per_prompt": sum(encoder_rows) / len(groups),
        "grad_norm": float(torch.nn.utils.get_total_norm(grads)),
    }
    print(json.dumps(row))


def _resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize() / 2**20


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(*sys.argv[2:4])
    arguments = parse_arguments(__doc__ or "")
    rows = []
    for size_name in ["tiny"] if arguments.quick else list(SIZES):
        for variant in LOSSES:
            command = [sys.executable, "-m", "benchmarks.learner_step", "--work", size_name, variant]
            done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    usual, ours = rows[-2:]
    headline = {
        "model": ours["model"],
        "throughput": ours["tokens_per_second"] / usual["tokens_per_second"],
        "memory": ours["peak_MB"] / usual["peak_MB"],
        "grad_norm_difference": abs(ours["grad_norm"] / usual["grad_norm"] - 1),
    }
    goals = {"the same gradient norm to 1e-4": headline["grad_norm_difference"] < 1e-4}
    if not arguments.quick:
        goals["3 times the throughput"] = headline["throughput"] >= 3
        goals["a quarter of the memory"] = headline["memory"] <= 0.25
    finish("learner_step", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
