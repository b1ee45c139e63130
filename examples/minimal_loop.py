"""GRPO-PTR in one file: the whole method on a toy task, to read from top to bottom and to run.

    python examples/minimal_loop.py            # about half a minute on one CPU core

The policy is a tiny, randomly initialised Qwen2. It is told two facts of a voice (its pitch and its rate),
shall think aloud and name the emotion. A short supervised phase teaches it the form of an answer, with
thoughts and emotions drawn at random. Then comes the loop, on the same `rlcore.algorithms` that
`rlcore.loop.controller` uses on a cluster:

    prompts -> rollouts -> scored groups -> mixed rewards -> advantages -> batch -> update -> next

What a cluster adds is left out: engines that generate, so there is no weight push; rewards in actors; media.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.algorithms.advantage import group_advantages, grpo
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.ptr import mix_rewards
from rlcore.algorithms.ptr_schedule import ProgressiveGate
from rlcore.config import AlgorithmConfig

FACTS = {"pitch": ("high", "low"), "rate": ("fast", "slow")}
EMOTION = {"high fast": "angry", "high slow": "afraid", "low fast": "disgusted", "low slow": "sad"}
WORDS = ["<pad>", "<think>", "</think>", "<answer>", "</answer>", *sum(FACTS.values(), ()), *EMOTION.values()]
ID = {word: i for i, word in enumerate(WORDS)}
PROMPTS = [tuple(facts.split()) for facts in EMOTION]
NUM_TOKENS = 7
"""Of an answer: `<think> high fast </think> <answer> angry </answer>`."""

ALGORITHM = AlgorithmConfig(kl_coef=0.02, clip_low=0.2, clip_high=0.28, std_eps=1e-2)
WEIGHTS = {"format": 0.3, "outcome": 1.0, "reasoning": 0.5}
NUM_SAMPLES = 16
PROMPTS_PER_STEP = 8


@dataclass(frozen=True)
class Rollout:
    """G groups of K sampled answers, as rows of G * K."""

    facts: list[tuple[str, str]]
    """[G]"""
    prompts: torch.Tensor
    """int64 [G * K, P]"""
    answers: torch.Tensor
    """int64 [G * K, T]"""
    logprobs: torch.Tensor
    """[G * K, T] of each sampled token, under the policy that sampled it."""


def token_logprobs(model: Qwen2ForCausalLM, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Returns [N, T]: the log-probability of each token of the answers after their prompts."""
    logits = model(torch.cat([prompts, answers], dim=1)).logits[:, prompts.shape[1] - 1 : -1]
    return logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]


@torch.no_grad()
def generate(model: Qwen2ForCausalLM, facts: list[tuple[str, str]], num_samples: int) -> Rollout:
    """Samples `num_samples` answers to each prompt, at temperature 1."""
    prompts = torch.tensor([[ID[word] for word in pair] for pair in facts for _ in range(num_samples)])
    tokens = prompts
    for _ in range(NUM_TOKENS):
        probabilities = model(tokens).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1)], dim=1)
    answers = tokens[:, prompts.shape[1] :]
    return Rollout(facts, prompts, answers, token_logprobs(model, prompts, answers))


def score(rollout: Rollout) -> dict[str, np.ndarray]:
    """Returns the rewards by name, float64 [G, K].

    The reasoning reward is a judge that can be fooled: it counts true facts among the thoughts, and likes an
    answer of `sad` whatever was said. Trust weight and gate are there for such judges.
    """
    rewards: dict[str, list[float]] = {name: [] for name in WEIGHTS}
    for row, answer in enumerate(rollout.answers.tolist()):
        facts = rollout.facts[row // (len(rollout.answers) // len(rollout.facts))]
        words = [WORDS[token] for token in answer]
        emotion = words[5]
        has_form = [words[i] for i in (0, 3, 4, 6)] == ["<think>", "</think>", "<answer>", "</answer>"]
        true = sum(thought == fact for thought, fact in zip(words[1:3], facts, strict=True)) / len(facts)
        rewards["format"].append(float(has_form and emotion in EMOTION.values()))
        rewards["outcome"].append(float(emotion == EMOTION[" ".join(facts)]))
        rewards["reasoning"].append(max(true, 0.8 * (emotion == "sad")))
    return {name: np.array(values).reshape(len(rollout.facts), -1) for name, values in rewards.items()}


def teach_the_form(model: Qwen2ForCausalLM, rng: np.random.Generator, num_steps: int = 60) -> None:
    """Supervised learning of answers that have the right form and say anything."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(num_steps):
        facts = [PROMPTS[i] for i in rng.integers(len(PROMPTS), size=64)]
        texts = [
            f"<think> {rng.choice(FACTS['pitch'])} {rng.choice(FACTS['rate'])} </think> "
            f"<answer> {rng.choice(list(EMOTION.values()))} </answer>"
            for _ in facts
        ]
        prompts = torch.tensor([[ID[word] for word in pair] for pair in facts])
        answers = torch.tensor([[ID[word] for word in text.split()] for text in texts])
        optimizer.zero_grad()
        (-token_logprobs(model, prompts, answers).mean()).backward()
        optimizer.step()


def train(num_steps: int = 60, *, seed: int = 0) -> list[dict[str, float]]:
    """Trains by GRPO-PTR and returns a row of metrics per step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    policy = Qwen2ForCausalLM(config)
    teach_the_form(policy, rng)
    reference = Qwen2ForCausalLM(config)
    reference.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0)
    gate = ProgressiveGate(threshold=0.5, window=5, max_spread=0.1)

    rows = []
    for step in range(num_steps):
        facts = [PROMPTS[i] for i in rng.integers(len(PROMPTS), size=PROMPTS_PER_STEP)]
        rollout = generate(policy, facts, NUM_SAMPLES)
        scores = score(rollout)

        # One reward per answer: reasoning counts once the gate is open, times each group's trust weight.
        gate.observe(float(scores["outcome"].mean()))
        factor = gate.factor(step)
        mixed = mix_rewards(scores, WEIGHTS, outcome="outcome", reasoning="reasoning", factor=factor)
        keep = mixed.mask & mixed.has_signal[:, None]
        advantages = group_advantages(mixed.rewards, keep, estimator=grpo, eps=ALGORITHM.std_eps)

        kept = torch.from_numpy(keep.reshape(-1))
        with torch.no_grad():
            reference_logprobs = token_logprobs(reference, rollout.prompts[kept], rollout.answers[kept])
        mask = torch.ones_like(rollout.answers[kept], dtype=torch.bool)
        totals = BatchTotals(num_tokens=int(mask.sum()), num_sequences=len(mask), max_tokens=NUM_TOKENS)
        inputs = LossInputs(
            logprobs=token_logprobs(policy, rollout.prompts[kept], rollout.answers[kept]),
            behaviour_logprobs=rollout.logprobs[kept],
            reference_logprobs=reference_logprobs,
            advantages=torch.from_numpy(advantages.reshape(-1))[kept],
            mask=mask,
        )
        result = policy_loss(inputs, totals, ALGORITHM.loss_settings)
        optimizer.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()

        means = {name: float(values.mean()) for name, values in scores.items()}
        kl = float(result.kl_sum) / max(totals.num_tokens, 1)
        rows.append({**means, "tau": float(mixed.tau.mean()), "gate": factor, "kl": kl})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO-PTR in one file, on a toy task.")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = train(arguments.steps, seed=arguments.seed)
    print("step  " + "  ".join(f"{name:>9}" for name in rows[0]))
    for step in sorted({*range(0, len(rows), 5), len(rows) - 1}):
        print(f"{step + 1:4}  " + "  ".join(f"{value:9.3f}" for value in rows[step].values()))


if __name__ == "__main__":
    main()
