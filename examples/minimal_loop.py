"""GRPO-PTR in one file: the whole method on a toy task, to read from top to bottom and to run.

    python examples/minimal_loop.py            # about 20 seconds of CPU time

The policy is a tiny, randomly initialised Qwen2. It is shown the measured pitch and rate of a voice; it shall
say in its thoughts what they are (high, fast) and then name the emotion. A short supervised phase teaches it
the form of an answer, with thoughts and emotions drawn at random. Then comes the loop, on the same
`rlcore.algorithms` that `rlcore.loop.controller` uses on a cluster:

    prompts -> rollouts -> scored groups -> mixed rewards -> advantages -> batch -> update -> next

What a cluster adds is left out. The policy itself generates, so there is no weight push. Rewards are
functions, not actors, and nobody listens to audio.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.algorithms.advantage import group_advantages
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.ptr import mix_rewards
from rlcore.algorithms.ptr_schedule import ProgressiveGate
from rlcore.config import AlgorithmConfig

# ---- The toy task. The prompt `240Hz 6/s` has one best answer:
# `<think> high fast </think> <answer> angry </answer>`.

MEASURED = {"high": "240Hz", "low": "120Hz", "fast": "6/s", "slow": "3/s"}
EMOTIONS = {
    ("high", "fast"): "angry",
    ("high", "slow"): "afraid",
    ("low", "fast"): "disgusted",
    ("low", "slow"): "sad",
}
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
WORDS = [*TAGS, *MEASURED.values(), *MEASURED, *EMOTIONS.values()]
TOKEN_IDS = {word: i for i, word in enumerate(WORDS)}
NUM_TOKENS = 7
"""The number of tokens of every answer."""

# ---- The settings, those of a run's YAML where there is one.

ALGORITHM = AlgorithmConfig(advantage="grpo", loss="ppo", kl_coef=0.05, std_eps=1e-2)
WEIGHTS = {"format": 0.5, "outcome": 1.0, "reasoning": 1.0}
PROMPTS_PER_STEP = 8
NUM_SAMPLES = 16
LEARNING_RATE = 2e-3


def new_policy() -> Qwen2ForCausalLM:
    """Returns a Qwen2 with random weights, small enough for a CPU."""
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,  # the usual 0.02 is for wide layers; narrow ones learn much later with it
    )
    return Qwen2ForCausalLM(config)


def as_tokens(texts: list[tuple[str, ...]]) -> torch.Tensor:
    """Returns N texts of L words each as token ids, int64 [N, L]."""
    return torch.tensor([[TOKEN_IDS[word] for word in text] for text in texts])


def as_prompts(facts: list[tuple[str, str]]) -> torch.Tensor:
    """Returns the prompts that show N voices with these facts, int64 [N, 2]."""
    return as_tokens([(MEASURED[pitch], MEASURED[rate]) for pitch, rate in facts])


def draw_facts(rng: np.random.Generator, num_voices: int) -> list[tuple[str, str]]:
    """Draws voices at random and returns the facts of each, pitch and rate."""
    return [list(EMOTIONS)[i] for i in rng.integers(len(EMOTIONS), size=num_voices)]


def token_logprobs(model: Qwen2ForCausalLM, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Returns the log-probability of each token of N answers [N, T] after their prompts [N, P], as [N, T]."""
    logits = model(torch.cat([prompts, answers], dim=1)).logits[:, prompts.shape[1] - 1 : -1]
    return logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]


def teach_the_form(policy: Qwen2ForCausalLM, rng: np.random.Generator, num_steps: int = 100) -> None:
    """Teaches the policy, supervised, answers that have the right form and say anything."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(num_steps):
        thoughts = draw_facts(rng, 64)
        emotions = [EMOTIONS[facts] for facts in draw_facts(rng, 64)]
        answers = [
            ("<think>", *facts, "</think>", "<answer>", emotion, "</answer>")
            for facts, emotion in zip(thoughts, emotions, strict=True)
        ]
        loss = -token_logprobs(policy, as_prompts(draw_facts(rng, 64)), as_tokens(answers)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout holds G groups of K sampled answers, one below the other as G * K rows."""

    facts: list[tuple[str, str]]
    """The facts of the G voices: pitch and rate."""
    prompts: torch.Tensor
    """The prompts' tokens, int64 [G * K, P]: each prompt K times."""
    answers: torch.Tensor
    """The sampled tokens, int64 [G * K, T]."""
    logprobs: torch.Tensor
    """Log-probabilities [G * K, T] of the sampled tokens, under the policy that sampled them."""


@torch.no_grad()
def generate(policy: Qwen2ForCausalLM, facts: list[tuple[str, str]], num_samples: int) -> Rollout:
    """Samples `num_samples` answers to the prompt of each voice, at temperature 1."""
    prompts = as_prompts(facts).repeat_interleave(num_samples, dim=0)
    tokens = prompts
    for _ in range(NUM_TOKENS):
        probabilities = policy(tokens).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1)], dim=1)
    answers = tokens[:, prompts.shape[1] :]
    logprobs = token_logprobs(policy, prompts, answers)
    return Rollout(facts=facts, prompts=prompts, answers=answers, logprobs=logprobs)


def score(rollout: Rollout) -> dict[str, np.ndarray]:
    """Returns the rewards of all answers by name, each float64 [G, K].

    The reasoning reward is a judge that can be fooled. It gives the share of thoughts that are true, and 0.8
    to whoever answers `sad`, whatever the thoughts. Trust weight and gate are there for such judges.
    """
    shape = (len(rollout.facts), len(rollout.answers) // len(rollout.facts))
    scores = {name: np.zeros(shape) for name in WEIGHTS}
    for row, answer in enumerate(rollout.answers.tolist()):
        group, sample = divmod(row, shape[1])
        think, pitch, rate, end_think, begin, emotion, end = (WORDS[token] for token in answer)
        facts = rollout.facts[group]
        has_form = [think, end_think, begin, end] == TAGS and emotion in EMOTIONS.values()
        share_true = ((pitch == facts[0]) + (rate == facts[1])) / 2
        scores["format"][group, sample] = has_form
        scores["outcome"][group, sample] = emotion == EMOTIONS[facts]
        scores["reasoning"][group, sample] = max(share_true, 0.8 if emotion == "sad" else 0.0)
    return scores


def update(
    policy: Qwen2ForCausalLM,
    reference: Qwen2ForCausalLM,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: np.ndarray,
    counts: np.ndarray,
) -> float:
    """Takes one step of the optimiser on the policy loss and returns the mean KL per token to the reference.

    `advantages` and `counts` are [G, K]; an answer whose `counts` is False gets no gradient.
    """
    with torch.no_grad():
        reference_logprobs = token_logprobs(reference, rollout.prompts, rollout.answers)
    inputs = LossInputs(
        logprobs=token_logprobs(policy, rollout.prompts, rollout.answers),
        behaviour_logprobs=rollout.logprobs,
        reference_logprobs=reference_logprobs,
        advantages=torch.from_numpy(advantages.reshape(-1)),
        mask=torch.from_numpy(counts.reshape(-1, 1)).expand_as(rollout.answers),
    )
    num_tokens = int(inputs.mask.sum())
    totals = BatchTotals(num_tokens=num_tokens, num_sequences=len(rollout.answers), max_tokens=NUM_TOKENS)
    result = policy_loss(inputs, totals, ALGORITHM.loss_settings)
    optimizer.zero_grad()
    result.loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    return float(result.kl_sum) / num_tokens


def train(num_steps: int = 110, *, seed: int = 0) -> list[dict[str, float]]:
    """Trains a new policy by GRPO-PTR and returns one row of metrics per step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    policy, reference = new_policy(), new_policy()
    teach_the_form(policy, rng)
    reference.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    gate = ProgressiveGate(threshold=0.7, window=10, max_spread=0.1)

    rows = []
    for step in range(num_steps):
        rollout = generate(policy, draw_facts(rng, PROMPTS_PER_STEP), NUM_SAMPLES)
        scores = score(rollout)

        # One reward per answer: reasoning counts once the gate is open, times its group's trust weight tau.
        factor = gate.factor(step)
        mixed = mix_rewards(scores, WEIGHTS, outcome="outcome", reasoning="reasoning", factor=factor)
        gate.observe(float(scores["outcome"].mean()))
        advantages = group_advantages(
            mixed.rewards, mixed.mask, estimator=ALGORITHM.advantage_estimator, eps=ALGORITHM.std_eps
        )
        kl = update(policy, reference, optimizer, rollout, advantages, mixed.mask)

        means = {name: float(values.mean()) for name, values in scores.items()}
        rows.append({**means, "tau": float(mixed.tau.mean()), "gate": factor, "kl": kl})
    return rows


def main() -> None:
    """Trains, and prints every fifth step."""
    parser = argparse.ArgumentParser(description="GRPO-PTR in one file, on a toy task.")
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = train(arguments.steps, seed=arguments.seed)
    print("step  " + "  ".join(f"{name:>9}" for name in rows[0]))
    for step in sorted({*range(0, len(rows), 5), len(rows) - 1}):
        print(f"{step + 1:4}  " + "  ".join(f"{value:9.3f}" for value in rows[step].values()))


if __name__ == "__main__":
    main()
