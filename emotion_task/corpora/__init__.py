"""Corpora, each in its owner's layout, one file a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Any

from emotion_task.corpora.ears import load_ears
from emotion_task.corpora.emodb import load_emodb
from emotion_task.corpora.expresso import load_expresso
from emotion_task.corpora.iemocap import load_iemocap
from emotion_task.corpora.manifest import load_manifest
from emotion_task.corpora.mead import load_mead
from emotion_task.corpora.meld import load_meld
from emotion_task.corpora.msp_podcast import load_msp_podcast
from emotion_task.corpora.ravdess import load_ravdess
from emotion_task.corpora.savee import load_savee
from emotion_task.corpora.synthetic import build_corpus
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

LOADERS: dict[str, Callable[..., list[Utterance]]] = {
    "ears": load_ears,
    "emodb": load_emodb,
    "expresso": load_expresso,
    "iemocap": load_iemocap,
    "manifest": load_manifest,
    "mead": load_mead,
    "meld": load_meld,
    "msp_podcast": load_msp_podcast,
    "ravdess": load_ravdess,
    "savee": load_savee,
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
    check_args(name, args)
    return LOADERS[name](root, **args)


def check_args(name: str, args: Iterable[str], *, build: bool = False) -> None:
    """Raises ConfigError where a corpus is not known, or takes no argument of such a name; `build` asks for
    those that the synthetic corpus is made with."""
    if name not in LOADERS:
        raise ConfigError(f"corpus {name!r}: not known; allowed are {', '.join(sorted(LOADERS))}")
    takes = signature(build_corpus if build and name == "synthetic" else LOADERS[name]).parameters
    not_ours = ("root", "folder", "seed", "num_workers", "progress")
    allowed = [parameter for parameter in takes if parameter not in not_ours]
    if unknown := sorted(set(args) - set(allowed)):
        raise ConfigError(f"corpus {name!r}: it does not take {unknown}; allowed are {', '.join(allowed)}")
