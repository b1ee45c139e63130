"""Asks a model for its answers and finishes them in every form, in an actor; writes what came of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_task.claims.support import ClaimTable, learn_table
from emotion_task.evaluation.bootstrap import plain
from emotion_task.labels import labels_beside
from emotion_task.parsing import normalise_label, parse_response
from emotion_task.rationale.asking import Answerer, Finished
from emotion_task.rationale.moves import TITLES, Probed, as_markdown, estimates, moves
from emotion_task.rationale.rewriting import rewrite
from emotion_task.records import Utterance, choose
from emotion_task.task import EmotionTask
from rlcore.actors.group import ActorGroup
from rlcore.actors.session import has_gpus, ray_session
from rlcore.config import ClusterConfig
from rlcore.errors import DataError
from rlcore.models.engine_environment import engine_env
from rlcore.records.files import write_json, write_rows
from rlcore.records.versions import versions

_GPU_SHARE = 0.8
"""Share of the GPU's memory for vLLM; the audio tower lies beside it."""
_START_S = 1800.0
"""Longest that the actor may wait for a GPU, and the engine take to start."""
_SECONDS_EACH = 300.0
"""Longest for all requests about an utterance: a large model on CPUs takes minutes."""


def write_rationale(
    manifest: str | Path,
    model: str,
    out: str | Path,
    *,
    labels: Sequence[str] | None = None,
    limit: int | None = None,
    max_tokens: int = 256,
    seed: int = 0,
) -> dict[str, Any]:
    """Asks a model about the split `eval` and writes rationale.json, rationale.md and answers.jsonl into
    `out`; returns what rationale.json holds.

    An answer costs eleven requests: its own, and for each of five forms a label to write and one to score.

    Args:
        manifest: annotated, with the splits `train` (from which it is learned what levels speak for which
            emotion) and `eval`.
        model: checkpoint folder or hub id.
        labels: options of the question; by default those that the model was trained with, else those of the
            manifest.
        limit: number of utterances, chosen by a hash of their ids; None for all.
        max_tokens: longest answer.
        seed: decides donors, wording and the bootstrap.

    Raises:
        ConfigError: an emotion of the question has no training recording with measured prosody.
        DataError: no answer could be tested; the message says why.
    """
    task = EmotionTask(str(manifest), model, labels or labels_beside(model))
    table = learn_table(task.utterances("train"), task.labels)
    held_out = task.utterances("eval")
    asked = choose(held_out, limit)
    with ray_session(ClusterConfig()), _answerer(model, task, max_tokens) as actor:
        timeout_s = _START_S + _SECONDS_EACH * len(asked)
        answers = actor.call_one(0, "answer", [u.audio for u in asked], timeout_s=timeout_s)
        tested, left_out = _tested(asked, answers, held_out, table, seed)
        if not tested:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
            raise DataError(f"{model}: none of {len(asked)} answers can be tested ({reasons})")
        forms = [form for each in tested for form in each.forms]
        flat = iter(actor.call_one(0, "finish", forms, timeout_s=timeout_s))
    finished = [[next(flat) for _ in TITLES] for _ in tested]
    found = estimates(moves(tested, finished), seed)
    report = {
        "model": model,
        "num_utterances": len(asked),
        "num_tested": len(tested),
        "left_out": left_out,
        **plain(found),
        "seed": seed,
        "versions": versions(),
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "rationale.json", report)
    write_rows(folder / "answers.jsonl", map(_row, tested, finished))
    (folder / "rationale.md").write_text(as_markdown({**report, **found}), encoding="utf-8")
    return report


@contextmanager
def _answerer(model: str, task: EmotionTask, max_tokens: int) -> Iterator[ActorGroup]:
    """Holds an actor, on a GPU where the cluster has any."""
    on_gpu = has_gpus()
    arguments = {
        "model_path": str(Path(model).resolve()) if Path(model).is_dir() else model,
        "prompt": task.prompt_text,
        "labels": task.labels,
        "max_tokens": max_tokens,
        "dtype": "bfloat16" if on_gpu else "float32",
        "engine": {"gpu_memory_utilization": _GPU_SHARE} if on_gpu else {},
    }
    env = engine_env(cpu=not on_gpu)
    actor = ActorGroup("rationale", Answerer, [arguments], num_cpus=1, num_gpus=float(on_gpu), env_vars=env)
    try:
        yield actor
    finally:
        actor.shutdown()


def _tested(
    asked: Sequence[Utterance],
    answers: Sequence[str],
    others: Sequence[Utterance],
    table: ClaimTable,
    seed: int,
) -> tuple[list[Probed], dict[str, int]]:
    """Returns the answers that can be finished in every form, and the number of the others by reason."""
    tested, left_out = [], Counter[str]()
    for utterance, text in zip(asked, answers, strict=True):
        parsed = parse_response(text)
        label = None if parsed is None else normalise_label(parsed.answer, table.labels)
        if parsed is None or label is None:
            left_out["no answer"] += 1
            continue
        rng = random.Random(f"{seed}/{utterance.id}")
        traces = rewrite(parsed.think, label, utterance, others, table, rng)
        if isinstance(traces, str):
            left_out[traces] += 1
        else:
            tested.append(Probed(utterance=utterance, label=label, traces=traces))
    return tested, dict(left_out)


def _row(tested: Probed, finished: Sequence[Finished]) -> dict[str, object]:
    forms = zip(TITLES, tested.forms, finished, strict=True)
    return {
        "id": tested.utterance.id,
        "label": tested.label,
        "donor": tested.traces.donor.id,
        "donor_emotion": tested.traces.donor.emotion,
        "forms": {
            name: {"begun": forced.beginning, "label": made.label, "logprob": made.logprob}
            for name, forced, made in forms
        },
    }
