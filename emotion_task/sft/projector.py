"""Fits a projector in closed form: from a frozen tower's output to the words for what the tower hears.

A random projector that is trained by gradient descent on few speakers learns the speakers. Here a
recording's facts are regressed on the mean of its frames (ridge regression, Hoerl and Kennedy 1970,
doi:10.1080/00401706.1970.10488634), and each frame becomes

    center + g * sum over values v of (score of v in the frame, of variance 1) * (direction of v's words)

among the language model's own embeddings, and of their average length. What tells no fact from another is
left out, and with that most of what a voice could be recognised by; so the projector stays frozen afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import nn

from emotion_task.facts import VALUES, stated_facts
from emotion_task.prompt import PROFILE_KEYWORDS
from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError
from rlcore.records.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the penalty that are tried, in units of the features' variance."""
MAX_FOLDS = 12
_EMOTION = "emotion"


@dataclass(frozen=True, slots=True)
class Fit:
    """Holds a fitted regression: `features [..., D] @ weight [D, C]` scores the values, up to a constant."""

    weight: np.ndarray
    """Weights, float64 [D, C]; C counts the values of all attributes."""
    strength: float
    """Strength of the penalty, in units of the features' variance."""
    recall: dict[str, float]
    """Mean recall of each attribute's values, on speakers that were not fitted."""


def fit_across_speakers(
    features: np.ndarray,
    values: Mapping[str, Sequence[str | None]],
    options: Mapping[str, Sequence[str]],
    speakers: Sequence[str],
    strengths: Sequence[float] = STRENGTHS,
) -> Fit:
    """Fits a ridge regression, with the strength of penalty that generalises best to new speakers.

    Speakers are left out in turn; the strength with the highest mean recall of their values wins.

    Args:
        features: [U, D], the mean over each recording's frames.
        values: value of each recording by attribute; None (not known) counts as the mean of the known ones.
        options: possible values by attribute; some recording has each of them.
        speakers: speaker of each recording.
        strengths: strengths to try, in units of the features' variance.

    Raises:
        DataError: There is nothing to fit, or there are fewer than two speakers.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not options:
        raise DataError(
            "alignment.fit: no emotion that SFT may see and no level, intonation or gender has two values "
            "among the training utterances; annotate them, raise sft.label_fraction, or set alignment.fit: "
            "false"
        )
    if (num_speakers := len(set(speakers))) < 2:
        raise DataError(
            f"alignment.fit: the training split has {num_speakers} speaker, and speakers are left out in "
            "turn to choose the penalty; give at least 2 (field `speaker` of the manifest), or set "
            "alignment.fit: false"
        )
    targets = np.concatenate([_one_hot(values[name], options[name]) for name in options], axis=1)
    folds = GroupKFold(min(num_speakers, MAX_FOLDS))
    best: Fit | None = None
    for strength in strengths:
        model = make_pipeline(StandardScaler(), Ridge(alpha=strength * len(features)))
        scores = cross_val_predict(model, features, targets, groups=speakers, cv=folds)
        recall = _recall(scores, values, options)
        if best is None or np.mean(list(recall.values())) > np.mean(list(best.recall.values())):
            model.fit(features, targets)
            weight = model[-1].coef_.T / model[0].scale_[:, None]
            best = Fit(weight, strength, recall)
    assert best is not None, "there is a strength"
    return best


def projection(
    weight: np.ndarray,
    directions: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    embeddings: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the projector of the module's formula: weight [H, D] and bias [H].

    Args:
        weight: [D, C], as in `Fit`.
        directions: [C, H], the direction of each value's words, of unit length.
        mean: [D], the mean of the frames.
        covariance: [D, D], the covariance of the frames.
        embeddings: [V, H], the embeddings of the language model's tokens.
    """
    deviation = np.sqrt(np.maximum(np.einsum("dc,de,ec->c", weight, covariance, weight), 1e-24))
    center, length = embeddings.mean(axis=0), np.linalg.norm(embeddings, axis=1).mean()
    scores = weight / deviation  # of variance 1 over the frames
    matrix = scores @ directions  # [D, H]
    spread = math.sqrt(float(np.einsum("dh,de,eh->", matrix, covariance, matrix)))
    gain = math.sqrt(max(length**2 - float(center @ center), 0.0)) / max(spread, 1e-12)
    return gain * matrix.T, center - gain * (mean @ matrix)


class ProjectorFit(TypedDict):
    """Figures of a projector's fit."""

    strength: float
    """Penalty of the ridge regression."""
    recall: dict[str, float]
    """Mean recall of each attribute's values, on speakers that were left out."""


def fit_projector(
    model_path: str,
    utterances: Sequence[Utterance],
    folder: str | Path,
    *,
    labels: Sequence[str],
    cache_folder: str | None = None,
) -> ProjectorFit:
    """Writes the checkpoint `model_path` to `folder`, with a projector that is fitted to what is known of the
    utterances.

    Args:
        utterances: annotated utterances, without their emotion where it is withheld.
        labels: the emotions.
        cache_folder: folder that keeps the tower's output, as `SupervisedConfig.media_cache`.

    Returns:
        `strength` of the penalty, and `recall` by attribute, on speakers that were left out.

    Raises:
        ConfigError: The model's projector is no single linear layer with a bias.
        DataError: There is nothing to fit, or there are fewer than two speakers.
        CheckpointError: The folder cannot be written, which is found before the fit.
    """
    from rlcore.models.export_check import prepare_export
    from rlcore.models.hf_model import load_model, load_processor, save_checkpoint, tokenizer_of

    model = load_model(model_path)
    linear = _linear(model, model_path)
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    companions = prepare_export(model, model_path, Path(folder), num_bytes=num_bytes)
    means, mean, covariance = _frames(model_path, utterances, cache_folder)
    known = [stated_facts(utterance) for utterance in utterances]
    values: dict[str, list[str | None]] = {_EMOTION: [u.emotion for u in utterances]}
    values |= {name: [facts.get(name) for facts in known] for name in VALUES}
    options = {name: _known(values[name], labels if name == _EMOTION else VALUES[name]) for name in values}
    options = {name: seen for name, seen in options.items() if len(seen) > 1}
    fitted = fit_across_speakers(means, values, options, [u.speaker or u.id for u in utterances])
    processor = load_processor(model_path)
    embeddings = model.get_input_embeddings().weight.detach().double().numpy()
    directions = _directions(options, tokenizer_of(processor), embeddings)
    weight, bias = projection(fitted.weight, directions, mean, covariance, embeddings)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    save_checkpoint(model, folder, companions=companions)
    return {"strength": fitted.strength, "recall": fitted.recall}


def check_base_model(model_path: str, *, fits: bool) -> None:
    """Checks a checkpoint's config for what would end the line of stages later; no weights are loaded.

    Args:
        fits: whether the model's projector will be fitted.

    Raises:
        ConfigError: The architecture is not known, takes no audio, or has no projector to fit.
        DataError: There is no such model.
    """
    from rlcore.models.families import family_of
    from rlcore.models.hf_model import load_config

    config = load_config(model_path)
    family, architecture = family_of(config), (config.architectures or ["?"])[0]
    if family.audio_tower is None:
        raise ConfigError(
            f"base_model: {model_path} ({architecture}) takes no audio; name a speech model, such as "
            "Qwen/Qwen2-Audio-7B-Instruct or what `emotion small-model` builds"
        )
    if fits and family.projector is None:
        raise _cannot_fit(model_path, architecture)


def _linear(model: PreTrainedModel, model_path: str) -> nn.Linear:
    from rlcore.models.families import family_of

    path = family_of(model).projector
    modules = [] if path is None else model.get_submodule(path).modules()
    layers = [module for module in modules if next(module.parameters(recurse=False), None) is not None]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or layers[0].bias is None:
        raise _cannot_fit(model_path, type(model).__name__)
    return layers[0]


def _cannot_fit(model_path: str, architecture: str) -> ConfigError:
    return ConfigError(
        f"alignment.fit: {model_path} ({architecture}) has no projector of one linear layer with a bias, "
        "which is what can be fitted; set alignment.fit: false"
    )


def _frames(
    model_path: str, utterances: Sequence[Utterance], cache_folder: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each recording's mean [U, D], and the mean [D] and covariance [D, D] of all frames."""
    from emotion_task.sft.encode import ExampleEncoder

    encoder = ExampleEncoder(model_path, freeze=("",), cache_bytes=0, cache_folder=cache_folder)
    means, count = [], 0
    total, square = np.zeros(()), np.zeros(())
    for utterance in Progress(utterances, desc="frames", unit="utt"):
        states = encoder.audio_states(utterance.audio).astype(np.float64)
        means.append(states.mean(axis=0))
        total, square = total + states.sum(axis=0), square + states.T @ states
        count += len(states)
    mean = total / count
    return np.array(means), mean, square / count - np.outer(mean, mean)


def _known(values: Sequence[str | None], options: Sequence[str]) -> list[str]:
    seen = set(values)
    return [option for option in options if option in seen]


def _one_hot(values: Sequence[str | None], options: Sequence[str]) -> np.ndarray:
    """Returns the values one-hot, [U, values]; an unknown value is the mean of the known ones."""
    rows = np.array([[float(value == option) for option in options] for value in values])
    is_known = rows.any(axis=1)
    rows[~is_known] = rows[is_known].mean(axis=0)
    return rows


def _recall(
    scores: np.ndarray, values: Mapping[str, Sequence[str | None]], options: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Returns the mean recall of each attribute's values, over the recordings of which the value is known."""
    from sklearn.metrics import balanced_accuracy_score

    result, start = {}, 0
    for name, choices in options.items():
        named = scores[:, start : start + len(choices)].argmax(axis=1)
        known = [i for i, value in enumerate(values[name]) if value in choices]
        truth = [choices.index(value) for value in values[name] if value in choices]
        result[name] = float(balanced_accuracy_score(truth, named[known]))
        start += len(choices)
    return result


def _directions(
    options: Mapping[str, Sequence[str]], tokenizer: PreTrainedTokenizerBase, embeddings: np.ndarray
) -> np.ndarray:
    """Returns unit vectors [C, H]: what sets each value's words apart from the attribute's other values."""
    rows = []
    for name, choices in options.items():
        words = [f" {c}" if name == _EMOTION else f" {PROFILE_KEYWORDS[name]} {c}" for c in choices]
        ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        named = np.array([embeddings[each].mean(axis=0) for each in ids])
        named -= named.mean(axis=0)
        rows.append(named / np.maximum(np.linalg.norm(named, axis=1, keepdims=True), 1e-12))
    return np.concatenate(rows)
