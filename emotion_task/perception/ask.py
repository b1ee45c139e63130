"""Asks by forced choice: of the offered answers, the model's is the one with the highest probability.

    recordings -> tower, once each -> every option as a completion of its question -> the best sum of logprobs

A model that knows nothing chooses by chance, instead of failing to answer in form, so that what training adds
is hearing. An option is scored with what ends it (the comma or the end of the turn): `rising` does not win
over `rising-falling` by being its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from emotion_task.perception.questions import Turn, is_graded
from emotion_task.records import Utterance
from emotion_task.sft.encode import ExampleEncoder
from rlcore.actors.group import ActorGroup
from rlcore.actors.session import has_gpus, ray_session
from rlcore.config import ClusterConfig
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.chat_template import format_prompt
from rlcore.models.device import own_device
from rlcore.models.families import family_of
from rlcore.models.hf_model import load_model

_CACHE_BYTES = 1 << 30
_START_S = 1800.0
"""Longest that an actor may wait for a GPU and load a model."""
_SECONDS_EACH = 300.0
"""Longest for all questions about an utterance: a large model on CPUs takes minutes."""


@dataclass(slots=True)
class _Asking:
    """Holds one turn on its way through its choices."""

    audio: str
    prompt: str
    turn: Turn
    chosen: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return len(self.chosen) == len(self.turn.choices)

    def completions(self) -> list[tuple[str, bool]]:
        """Returns the options of the next choice, written out from the answer's beginning, and whether the
        turn ends there."""
        index = len(self.chosen)
        is_last = index == len(self.turn.choices) - 1
        if not self.turn.is_profile:
            return [(option, is_last) for option in self.turn.choices[index].options]
        said = [f"{c.attribute} {value}" for c, value in zip(self.turn.choices, self.chosen, strict=False)]
        choice = self.turn.choices[index]
        end = "" if is_last else ","
        return [
            (", ".join([*said, f"{choice.attribute} {option}"]) + end, is_last) for option in choice.options
        ]


def choose_apart(
    models: Mapping[str, str], utterances: Sequence[Utterance], turns: Sequence[Sequence[Turn]]
) -> dict[str, list[list[list[str]]]]:
    """Returns what `Listener.choose` returns of each model, by name.

    An actor does it, on a GPU where the cluster has any: this process goes on to other stages, whose actors
    find that GPU free again.

    Args:
        models: checkpoint by name.
        turns: the turns of each utterance (`questions.turns_of`).
    """
    with ray_session(ClusterConfig()):
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        num_gpus = 1.0 if has_gpus() else 0.0
        actor = ActorGroup("perception", _Apart, [{}], num_cpus=1, num_gpus=num_gpus, env_vars=threads)
        try:
            timeout_s = _START_S + _SECONDS_EACH * len(utterances)
            return {
                name: actor.call_one(
                    0,
                    "choose",
                    str(Path(path).resolve()) if Path(path).is_dir() else path,
                    utterances,
                    turns,
                    timeout_s=timeout_s,
                )
                for name, path in models.items()
            }
        finally:
            actor.shutdown()


class _Apart:
    """Has a `Listener` for the length of a call."""

    def choose(
        self, model_path: str, utterances: Sequence[Utterance], turns: Sequence[Sequence[Turn]]
    ) -> list[list[list[str]]]:
        return Listener(model_path).choose(utterances, turns)


class Listener:
    """Asks one model about recordings, on this process's GPU where it has one."""

    def __init__(self, model_path: str, *, batch_size: int = 32):
        device = own_device()
        dtype = "bfloat16" if device == "cuda" else "float32"
        self._model = load_model(model_path, dtype=dtype, device=device)
        # Frozen, a tower is run once for all questions about a recording.
        frozen = family_of(self._model).media_modules
        self._encoder = ExampleEncoder(model_path, freeze=frozen, cache_bytes=_CACHE_BYTES)
        self._batch_size = batch_size

    def choose(
        self, utterances: Sequence[Utterance], turns: Sequence[Sequence[Turn]]
    ) -> list[list[list[str]]]:
        """Returns the chosen option of every choice, by utterance, turn and choice.

        Args:
            turns: the turns of each utterance (`questions.turns_of`).
        """
        prompts: dict[str, str] = {}
        asking = [
            [_Asking(utterance.audio, self._prompt(turn, prompts), turn) for turn in of_one]
            for utterance, of_one in zip(utterances, turns, strict=True)
        ]
        waiting = [each for of_one in asking for each in of_one]
        while waiting:
            for start in range(0, len(waiting), self._batch_size):
                batch = waiting[start : start + self._batch_size]
                for each, best in zip(batch, self._best(batch), strict=True):
                    choice = each.turn.choices[len(each.chosen)]
                    each.chosen.append(choice.options[best])
            waiting = [each for each in waiting if not each.is_done]
        return [[each.chosen for each in of_one] for of_one in asking]

    def _prompt(self, turn: Turn, prompts: dict[str, str]) -> str:
        key = repr(turn.messages)
        if key not in prompts:
            prompts[key] = format_prompt(self._encoder.processor, turn.messages)
        return prompts[key]

    @torch.inference_mode()
    def _best(self, batch: Sequence[_Asking]) -> list[int]:
        groups = [self._encoder.encode_options(e.audio, e.prompt, e.completions()) for e in batch]
        scored = completion_logprobs(self._model, groups)
        sums = (scored.logprobs * scored.mask).sum(-1).float().cpu().numpy()
        ends = np.cumsum([len(group.token_ids) for group in groups])
        return [int(np.argmax(part)) for part in np.split(sums, ends[:-1])]


def hits(
    turns: Sequence[Sequence[Turn]], chosen: Sequence[Sequence[Sequence[str]]], attributes: Sequence[str]
) -> np.ndarray:
    """Returns a table, float [N, A]: 1 where the right option was chosen, 0 where another was, and NaN where
    the attribute was not asked about or not graded.

    Args:
        turns: the turns of each of N utterances.
        chosen: the option that was chosen, by utterance, turn and choice.
        attributes: the A columns.
    """
    table = np.full((len(turns), len(attributes)), np.nan)
    for row, (of_one, answers) in enumerate(zip(turns, chosen, strict=True)):
        for turn, values in zip(of_one, answers, strict=True):
            for choice, value in zip(turn.choices, values, strict=True):
                if is_graded(choice):
                    table[row, attributes.index(choice.attribute)] = float(value == choice.answer)
    return table
