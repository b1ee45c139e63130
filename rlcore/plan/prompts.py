"""Measures the prompts of a run's task on this machine: their tokens, and the seconds that their media take.

The task says which prompts there are and loads their media, the model's own processor makes tokens of them;
what the media are is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlcore.config import RunConfig
from rlcore.config.targets import build_target
from rlcore.plan.workload import AUDIO_TOKENS_PER_S, Workload
from rlcore.task import Task
from rlcore.types import Prompt

NUM_SPREAD = 48
"""Prompts that are looked at evenly along the split, for the mean."""
NUM_LARGEST = 16
"""Prompts with the largest files that are looked at besides, for the longest."""


def measured_workload(config: RunConfig, workload: Workload) -> tuple[Workload, str]:
    """Returns the workload with the lengths of the task's training prompts, and a line that says where they
    come from. Where the task or the model's processor cannot be read here, the workload is as it was and the
    line says why."""
    try:
        return _measured(config, workload)
    except Exception as error:  # the boundary to the task's code, and to the processor's
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return workload, (
            f"lengths of the prompts are assumed, {workload.prompt_tokens} text tokens and "
            f"{workload.audio_seconds:g} s of audio (--prompt-tokens, --audio-seconds), because the task's "
            f"prompts cannot be read here: {reason}"
        )


def _measured(config: RunConfig, workload: Workload) -> tuple[Workload, str]:
    from rlcore.models.hf_model import tokenizer_of
    from rlcore.models.media import MediaEncoder
    from rlcore.models.tokens import tokens_of

    task: Task = build_target(config.task.target, config.task.args, where="task")
    prompts = task.prompts("train")
    spread = [prompts[i * len(prompts) // NUM_SPREAD] for i in range(NUM_SPREAD)]
    spread = list({prompt.id: prompt for prompt in spread}.values())
    encoder = MediaEncoder(config.model.path, task.load_media, media="raw", cache_bytes=0, sees=False)
    encoder.encode(spread[:1])  # the first also loads code
    began = time.perf_counter()
    lengths = [len(each.prompt_token_ids) for each in encoder.encode(spread)]
    seconds = (time.perf_counter() - began) / len(spread)
    largest = sorted(prompts, key=_num_bytes, reverse=True)[:NUM_LARGEST]
    longest = max(lengths + [len(each.prompt_token_ids) for each in encoder.encode(largest)])
    tokenizer = tokenizer_of(encoder.processor)
    text = float(np.mean([len(tokens_of(tokenizer, prompt.text)) for prompt in spread]))
    measured = replace(
        workload,
        prompt_tokens=max(1, round(text)),
        audio_seconds=max(0.0, float(np.mean(lengths)) - text) / AUDIO_TOKENS_PER_S,
        longest_prompt=longest,
        prepare_seconds=seconds,
    )
    num_looked = len({prompt.id for prompt in (*spread, *largest)})
    return measured, (
        f"lengths of the prompts are measured on {num_looked} of {len(prompts)} of the task's: "
        f"{np.mean(lengths):.0f} tokens on average, {longest} at most"
    )


def _num_bytes(prompt: Prompt) -> int:
    """Bytes of the files that a prompt's media name: the largest are the longest, as a rule."""
    return sum(
        Path(path).stat().st_size for path in _paths(list(prompt.media.values())) if Path(path).is_file()
    )


def _paths(values: Sequence[object]) -> list[str]:
    flat = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    return [str(each) for each in flat if isinstance(each, str | Path)]
