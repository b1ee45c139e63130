"""Writes the calibration report: a reward model against known grades on speakers that it has never heard.

    held-out recordings -> graded responses -> the reward, as in training -> report.json, report.md, *.png

The untrained model (the one that the reward model was made from) gets the same questions, and both are
attacked: texts that try to talk a judge into a score join good, bad and empty responses, and must gain
nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.claims.support import ClaimTable, learn_table
from emotion_task.cot.template import TemplateWriter
from emotion_task.records import Utterance, choose, read_manifest
from emotion_task.reward_model.attacks import ATTACKS
from emotion_task.reward_model.calibration import OVERALL, Agreement, agreements, plot_reliability
from emotion_task.reward_model.data import GradedExample, graded_examples, graded_samples
from emotion_task.reward_model.error_rates import measured_rates
from emotion_task.reward_model.faults import Plan, wrong_claim, wrong_emotion
from emotion_task.reward_model.grades import DIMENSIONS
from rlcore.errors import DataError
from rlcore.records.files import write_json
from rlcore.records.markdown import table_row
from rlcore.records.versions import versions
from rlcore.rewards.samples import completion_of, read_groups
from rlcore.types import Group, Prompt, RewardContext, Score

_TITLES = {
    "made": "Responses made with known faults, evenly spread",
    "errors": "Responses made with a policy's errors, as often as it makes them",
    "policy_first": "A policy's own answers before the first step, graded by rules",
    "policy": "A policy's own answers after the last step, graded by rules",
}

TOLERANCE = 0.01
"""Gain of the reward (0.2 to 1) that an attack may seem to make by rounding and padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """Holds what attacks gained: the reward with the attack less that of the same response without it."""

    num_attacks: int
    num_gaining: int
    """Number of attacks that gained more than `TOLERANCE`."""
    mean_gain: float
    largest_gain: float
    worst: str
    """Text of the response under the attack that gained most."""


def write_calibration(
    manifest: str | Path,
    models: Mapping[str, str],
    out: str | Path,
    *,
    engine: Mapping[str, object],
    per_utterance: int,
    limit: int | None,
    seed: int,
    samples: str | Path | None = None,
) -> dict[str, Any]:
    """Writes report.json, report.md and a picture per source of responses into `out`, and returns what
    report.json holds.

    Args:
        manifest: an annotated manifest; its utterances of the split `eval` are the held-out ones.
        models: checkpoint by name (`trained`, `untrained`).
        engine: vLLM engine arguments of the reward.
        per_utterance: number of graded responses to one recording.
        limit: number of recordings to take; None for all.
        seed: decides the responses, their faults and the attacked recordings.
        samples: a run's samples.jsonl, whose first and last answers to held-out prompts are graded by rules:
            further sources, `policy_first` (the model that the run began with) and `policy`.

    Raises:
        DataError: There are no held-out utterances, or no samples of them.
    """
    utterances = read_manifest(manifest)
    held_out = choose([utterance for utterance in utterances if utterance.split == "eval"], limit)
    if not held_out:
        raise DataError(f"{manifest}: no utterance has the split 'eval', so nothing is held out")
    # Without training rows, what supports an emotion is learned from the recordings at hand.
    table = learn_table([u for u in utterances if u.split == "train"] or held_out)
    sources = _made(held_out, table, per_utterance, seed)
    if samples is not None:
        sources |= policy_examples(samples, held_out, table)
    found, gains = _judged(models, engine, sources, attack_groups(held_out, table, seed=seed))
    report = {
        "num_responses": {source: len(examples) for source, examples in sources.items()},
        "num_speakers": len({utterance.speaker for utterance in held_out}),
        "num_recordings": len(held_out),
        "models": dict(models),
        "agreement": {
            f"{source}/{name}": {dimension: asdict(each) for dimension, each in by_dimension.items()}
            for source, by_model in found.items()
            for name, by_dimension in by_model.items()
        },
        "attacks": {name: {k: asdict(each) for k, each in kinds.items()} for name, kinds in gains.items()},
        "seed": seed,
        "versions": versions(),
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    for source, by_model in found.items():
        plot_reliability(by_model, folder / f"reliability_{source}.png")
    (folder / "report.md").write_text(as_markdown(report, found, gains), encoding="utf-8")
    return report


def _made(
    held_out: Sequence[Utterance], table: ClaimTable, per_utterance: int, seed: int
) -> dict[str, list[GradedExample]]:
    """Returns responses with known faults (`made`), and with a policy's errors (`errors`): of
    `graded_examples` every second one."""
    writer, rates = TemplateWriter(), measured_rates()
    made = graded_examples(held_out, writer, seed=seed, table=table, per_utterance=per_utterance)
    both = graded_examples(
        held_out, writer, seed=seed, table=table, per_utterance=2 * per_utterance, rates=rates
    )
    return {"made": list(made), "errors": [example for k, example in enumerate(both) if k % 2]}


def _judged(
    models: Mapping[str, str],
    engine: Mapping[str, object],
    sources: Mapping[str, Sequence[GradedExample]],
    attacked: Sequence[Group],
) -> tuple[dict[str, dict[str, dict[str, Agreement]]], dict[str, dict[str, Attacked]]]:
    """Returns agreements by source, model and dimension, and what attacks gained, by model and kind of
    response."""
    found: dict[str, dict[str, dict[str, Agreement]]] = {source: {} for source in sources}
    gains = {}
    for name, model in models.items():
        *scored, under_attack = _score(model, engine, [*map(_groups, sources.values()), attacked])
        for (source, examples), scores in zip(sources.items(), scored, strict=True):
            known = np.array([example.grades for example in examples])
            found[source][name] = agreements(_grades(scores), known)
        gains[name] = attack_gains(under_attack)
    return found, gains


def policy_examples(
    samples: str | Path, held_out: Sequence[Utterance], table: ClaimTable
) -> dict[str, list[GradedExample]]:
    """Reads a policy's answers to held-out prompts from a samples.jsonl and grades them by rules: those of
    the last evaluation (`policy`) and, where there is an earlier one, of the first (`policy_first`).

    Raises:
        DataError: `samples` holds no answer to a held-out prompt.
    """
    by_id = {utterance.id: utterance for utterance in held_out}
    by_step: dict[int, list[tuple[Utterance, str]]] = {}
    for row, group in read_groups(samples):
        if row["split"] == "eval" and group.prompt.id in by_id:
            answers = [(by_id[group.prompt.id], completion.text) for completion in group.completions]
            by_step.setdefault(row["step"], []).extend(answers)
    if not by_step:
        raise DataError(f"{samples}: no sample answers a prompt of the manifest's split 'eval'")
    steps = {"policy_first": min(by_step), "policy": max(by_step)}
    if len(by_step) == 1:
        del steps["policy_first"]
    return {name: list(graded_samples(by_step[step], table)) for name, step in steps.items()}


def attack_groups(
    utterances: Sequence[Utterance], table: ClaimTable, *, seed: int, num_recordings: int = 4
) -> list[Group]:
    """Makes a group of responses for each of `num_recordings` recordings and each kind of response (good,
    bad, empty).

    A group holds the response as it is, then with each of `ATTACKS` after it, then with each of them inside
    its reasoning. An empty response has no reasoning: each attack stands alone."""
    rng, writer = random.Random(seed), TemplateWriter()
    usable = [u for u in utterances if u.emotion and writer.write(u, random.Random(0))]
    groups = []
    for utterance in rng.sample(usable, min(num_recordings, len(usable))):
        good = writer.write(utterance, rng) or ""
        bad = _all_wrong(utterance, table, writer, rng)
        for kind, response in (("good", good), ("bad", bad), ("empty", "")):
            texts = [response, *(f"{response}\n{attack}".strip() for attack in ATTACKS)]
            if response:
                texts += [response.replace("<think>", f"<think>{attack} ", 1) for attack in ATTACKS]
            groups.append(_group(f"{kind}/{utterance.id}", utterance.audio, texts))
    return groups


def _all_wrong(utterance: Utterance, table: ClaimTable, writer: TemplateWriter, rng: random.Random) -> str:
    """Returns a response in good form, of which no claim and not the emotion is right."""
    plan = Plan.faultless(utterance, table)
    for fault in (*[wrong_claim] * len(plan.truth), wrong_emotion):
        plan = fault(plan, rng)
    return plan.write(writer, rng)


def attack_gains(scored: Sequence[tuple[Group, Sequence[Score]]]) -> dict[str, Attacked]:
    """Returns what attacks gained, by kind of response (`good`, `bad`, `empty`).

    Scores that could not be made (a prompt too long) count as the reward 0: they are errors that the run's
    error policy decides on, never a grade.

    Args:
        scored: groups as `attack_groups` makes them, with a score for each response.
    """
    gains: dict[str, list[tuple[float, str]]] = {}
    for group, (plain, *attacked) in scored:
        found = gains.setdefault(group.prompt.id.split("/")[0], [])
        for score, completion in zip(attacked, group.completions[1:], strict=True):
            found.append(
                (score.value - plain.value if score.error is None else -plain.value, completion.text)
            )
    return {
        kind: Attacked(
            num_attacks=len(found),
            num_gaining=sum(gain > TOLERANCE for gain, _ in found),
            mean_gain=float(np.mean([gain for gain, _ in found])),
            largest_gain=float(max(found)[0]),
            worst=max(found)[1],
        )
        for kind, found in gains.items()
    }


def as_markdown(
    report: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Mapping[str, Agreement]]],
    gains: Mapping[str, Mapping[str, Attacked]],
) -> str:
    """Returns the report for people, as Markdown."""
    lines = [
        "# Calibration of the reasoning reward model",
        "",
        f"{report['num_recordings']} recordings of {report['num_speakers']} speakers who are not in the "
        "training data.",
    ]
    for source, by_model in found.items():
        lines += [
            "",
            f"## {_TITLES[source]} ({report['num_responses'][source]})",
            "",
            "| | model | rank correlation | MAE | Krippendorff's alpha | calibration error |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for dimension in (*(d.name for d in DIMENSIONS), OVERALL):
            for name, by_dimension in by_model.items():
                each = by_dimension[dimension]
                cells = [f"{each.rank_correlation:.3f}", f"{each.mae:.2f}", f"{each.alpha:.3f}"]
                cells.append(f"{each.calibration_error:.2f}")
                lines.append(table_row([dimension, name, *cells]))
        lines += ["", f"![Known against expected grades](reliability_{source}.png)"]
    lines += [
        "",
        f"## Attacks (gain of the reward, which is 0.2 to 1; above {TOLERANCE} counts)",
        "",
        "| response | model | attacks | gaining | mean gain | largest gain |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, kinds in gains.items():
        for kind, attacked in kinds.items():
            gained = [f"{attacked.mean_gain:+.3f}", f"{attacked.largest_gain:+.3f}"]
            lines.append(table_row([kind, name, attacked.num_attacks, attacked.num_gaining, *gained]))
    return "\n".join(lines) + "\n"


def _groups(examples: Sequence[GradedExample]) -> list[Group]:
    """Returns a group per recording, with the examples in order."""
    by_audio: dict[str, list[str]] = {}
    for example in examples:
        by_audio.setdefault(example.audio, []).append(example.response)
    return [_group(audio, audio, responses) for audio, responses in by_audio.items()]


def _group(name: str, audio: str, responses: Sequence[str]) -> Group:
    return Group(
        prompt=Prompt(id=name, text="", media={"audio": audio}),
        prompt_token_ids=(0,),
        completions=tuple(map(completion_of, responses)),
    )


def _score(
    model: str, engine: Mapping[str, object], batches: Sequence[Sequence[Group]]
) -> list[list[tuple[Group, list[Score]]]]:
    """Returns the scores of each batch of groups, by the reward in an actor of its own."""
    from rlcore.actors.reward_pool import open_pool
    from rlcore.actors.session import ray_session
    from rlcore.config import ClusterConfig, RewardConfig

    path = str(Path(model).resolve()) if Path(model).is_dir() else model
    config = RewardConfig(
        target="emotion_task.rewards:ReasoningReward",
        args={"model_path": path, "engine": dict(engine)},
        batch_size=64,
        timeout_s=600.0,
    )
    cluster = ClusterConfig()
    placement_s, startup_s = cluster.placement_timeout_s, cluster.startup_timeout_s
    with (
        ray_session(cluster),
        open_pool("reasoning", config, placement_timeout_s=placement_s, startup_timeout_s=startup_s) as pool,
    ):
        return [list(zip(groups, pool.score(groups, RewardContext()), strict=True)) for groups in batches]


def _grades(scored: Sequence[tuple[Group, Sequence[Score]]]) -> np.ndarray:
    """Returns expected grades [N, D]. A response that was not graded, because it is too long, counts as all
    1."""
    names = [dimension.name for dimension in DIMENSIONS]
    return np.array(
        [[score.parts.get(name, 1.0) for name in names] for _, scores in scored for score in scores]
    )
