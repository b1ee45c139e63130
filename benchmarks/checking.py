"""Measures whether an audio tool pays: a policy may ask for one measurement before it answers, another not.

    python -m benchmarks.checking --line runs/quickstart --out runs/checking [--seeds 0 1 2] [--steps 60]
                                  [--quick] [--json FILE]

From the SFT model of a finished quickstart, per seed: both sides are taught a little more, on the same traces
with labels that SFT may see. For `asks` half of them begin with a call of `emotion_task.tools:VoiceTools`
(pitch, energy, rate or intonation of the utterance) and its result; for `alone` none does. Then both are
reinforced on format and outcome, with the same number of steps, prompts, samples and tokens that a completion
may have. The held-out utterances say how often each is right and its claims are, how many calls it makes, and
how often the other side is right where it asked: below its mean, it asks where it is hard to tell.

A finished part is not run again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import argument_parser, finish
from emotion_task.config import PipelineConfig, SupervisedConfig
from emotion_task.cot.template import TemplateWriter
from emotion_task.facts import reference_of
from emotion_task.parsing import normalise_label, parse_response
from emotion_task.records import Utterance, read_manifest
from emotion_task.sft.examples import format_examples
from emotion_task.sft.tasks import MixtureConfig, SFTExample, build_examples
from emotion_task.tools import VoiceTools
from rlcore.config import ClusterConfig, EnvironmentConfig, RewardConfig, RunConfig, load_config
from rlcore.environments import Episode
from rlcore.records.files import read_rows
from rlcore.records.tracking import SAMPLES, read_metrics
from rlcore.types import Prompt

SIDES = ("alone", "asks")
CALLS = ("pitch", "energy", "rate", "intonation")
MORE_TOKENS = 32
"""Tokens of a call and its result, by which completions of both sides may be longer."""


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--line", type=Path, required=True, help="folder of a finished quickstart")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="of reinforcement learning")
    arguments = parser.parse_args()
    from rlcore.run import ray_session

    warm_steps, steps, num_eval = (10, 2, 40) if arguments.quick else (150, arguments.steps, None)
    line = load_config([arguments.line / "config.yaml"], [], PipelineConfig)
    rows: list[dict[str, Any]] = []
    with ray_session(ClusterConfig(num_cpus=2)):
        for seed in arguments.seeds:
            answers = {}
            for side in SIDES:
                folder = arguments.out / f"{seed}" / side
                model = taught(line, arguments.line, folder, side, warm_steps, seed)
                answers[side] = reinforced(
                    line.rl, folder, model, side, seed, num_steps=steps, max_eval_prompts=num_eval
                )
                rows.append({"seed": seed, "side": side, **measures(folder / "rl", answers[side])})
            asked = [row["prompt"] for row in answers["asks"] if row.get("transcript")]
            right = {row["prompt"]: is_right(row) for row in answers["alone"]}
            rows[-1]["other_where_asked"] = np.mean([right[id] for id in asked]) if asked else float("nan")
    headline = {
        f"{side}_{name}": float(np.mean([row[name] for row in rows if row["side"] == side]))
        for side in SIDES
        for name in ("accuracy", "claim_precision", "calls")
    }
    finish("checking", rows, headline, {}, arguments)


def taught(line: PipelineConfig, made: Path, folder: Path, side: str, steps: int, seed: int) -> Path:
    """Returns the model that both sides' traces were shown to, with calls in half of them for `asks`."""
    from emotion_task.sft.job import run_supervised
    from rlcore.models.hf_model import load_processor

    model = folder / "sft" / "model"
    if model.is_dir():
        return model
    train = replace(line.sft.train, num_steps=steps, checkpoint_every=steps)
    utterances = {u.id: u for u in read_manifest(made / "annotated" / "manifest.jsonl") if u.split == "train"}
    examples = traces(line, list(utterances.values()), train, seed)
    if side == "asks":
        rng = random.Random(seed)
        examples = [with_call(e, utterances, rng) if rng.random() < 0.5 else e for e in examples]
    base = str(made / "sft" / "model")
    return run_supervised(
        format_examples(load_processor(base), examples), base, folder / "sft", train, seed=seed, name=side
    )


def traces(
    line: PipelineConfig, utterances: Sequence[Utterance], train: SupervisedConfig, seed: int
) -> list[SFTExample]:
    """Returns whole traces of the utterances whose label SFT could see."""
    mixture = MixtureConfig(
        weights={"reasoning": 1.0}, label_fraction=line.sft.label_fraction, seed=line.seed
    )
    return build_examples(
        utterances,
        TemplateWriter(),
        mixture,
        epoch=1 + seed,
        num_examples=train.num_steps * train.batch_size,
        labels=line.labels,
    )


def with_call(example: SFTExample, utterances: dict[str, Utterance], rng: random.Random) -> SFTExample:
    """Returns the trace with a call and its result in front. The result is shown to the loss as well: SFT
    knows no observations."""
    utterance = utterances[example.id.rpartition("/")[0]]
    prompt = Prompt(id=utterance.id, text="", reference=reference_of(utterance))
    call = f"<tool>{rng.choice(CALLS)}</tool>"
    result = VoiceTools().step(Episode(prompt=prompt, turns=(call,), observations=()))
    return replace(example, target=example.target.replace("<think>", f"<think>{call}{result}", 1))


def reinforced(
    rl: RunConfig, folder: Path, model: Path, side: str, seed: int, **length: int | None
) -> list[dict[str, Any]]:
    """Returns the rows of samples.jsonl of the last evaluation. `length` is of the section `train`."""
    from rlcore.run import train

    tools = EnvironmentConfig(target="emotion_task.tools:VoiceTools", max_turns=2)
    config = replace(
        rl,
        run_dir=str(folder / "rl"),
        seed=seed,
        model=replace(rl.model, path=str(model)),
        task=replace(rl.task, args={**rl.task.args, "model_path": str(model)}),
        rollout=replace(
            rl.rollout,
            max_tokens=rl.rollout.max_tokens + MORE_TOKENS,
            environment=tools if side == "asks" else EnvironmentConfig(),
        ),
        rewards={
            "format": RewardConfig(target="emotion_task.rewards:FormatReward", weight=0.3, num_cpus=0.05),
            "outcome": RewardConfig(target="emotion_task.rewards:OutcomeReward", num_cpus=0.05),
        },
        algorithm=replace(rl.algorithm, ptr=replace(rl.algorithm.ptr, outcome=None, reasoning=None)),
        train=replace(rl.train, eval_every=0, checkpoint_every=0, **length),  # type: ignore[arg-type]
    )
    if not (folder / "rl" / "model").is_dir():
        train(config, overwrite=True)
    rows = [row for row in read_rows(folder / "rl" / SAMPLES) if row["split"] == "eval"]
    last = max(row["step"] for row in rows)
    return [row for row in rows if row["step"] == last]


def measures(run_dir: Path, answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the held-out figures of a run's end."""
    last = read_metrics(run_dir)[-1]
    names = ("accuracy", "claim_precision", "format_rate", "tokens")
    called = [row.get("transcript", "").count("<result>") for row in answers]
    return {
        **{name: float(last.get(f"eval/{name}", float("nan"))) for name in names},
        "calls": float(np.mean(called)),
        "other_where_asked": float("nan"),
    }


def is_right(row: dict[str, Any]) -> bool:
    parsed = parse_response(row["text"])
    return parsed is not None and normalise_label(parsed.answer) == row["reference"]["emotion"]


if __name__ == "__main__":
    main()
