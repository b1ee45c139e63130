"""Corpora, each in its owner's layout, one file a corpus."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from emotion_task.corpora.manifest import load_manifest
from emotion_task.corpora.ravdess import load_ravdess
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

LOADERS: dict[str, Callable[..., list[Utterance]]] = {
    "manifest": load_manifest,
    "ravdess": load_ravdess,
    # The synthetic corpus is built first (`build_corpus`); then its folder holds a manifest.
    "synthetic": load_manifest,
}


def load_corpus(name: str, root: str | Path, **args: Any) -> list[Utterance]:
    """Lists the utterances of a corpus.

    Args:
        name: one of `LOADERS`.
        root: its folder.
        args: as the loader takes them, for instance `train_speakers` of RAVDESS.

    Raises:
        ConfigError: unknown corpus, or an argument that its loader does not take.
        DataError: the folder does not hold the corpus.
    """
    if name not in LOADERS:
        raise ConfigError(f"corpus {name!r}: not known; allowed are {', '.join(sorted(LOADERS))}")
    loader = LOADERS[name]
    allowed = [parameter for parameter in signature(loader).parameters if parameter != "root"]
    unknown = sorted(set(args) - set(allowed))
    if unknown:
        raise ConfigError(f"corpus {name!r}: it does not take {unknown}; allowed are {', '.join(allowed)}")
    return loader(root, **args)
