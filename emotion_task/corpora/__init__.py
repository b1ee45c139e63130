"""Corpora: each file of this folder is one, under the file's name, and holds its record as `CORPUS`.

A corpus of your own is named as `package.module:NAME` wherever a corpus is named. What readers share is in
`reading`, the synthetic voices are in `synthesis`. This module knows no corpus.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

from emotion_task.corpora.reading.splits import parse_fractions, split_by_speaker
from emotion_task.records import Utterance, write_manifest
from rlcore.config.targets import load_named
from rlcore.errors import ConfigError

_NOT_OF_USERS = ("root", "folder", "seed", "num_workers", "progress")
"""Parameters of loaders and makers that the configuration gives by other keys."""

_SPLIT = "split_by_speaker"
"""Argument of every corpus that is read from disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus is a function that lists its utterances, and one that makes it where nobody ships it."""

    load: Callable[..., list[Utterance]]
    """Lists the utterances below a folder: `load(root, **args)`. Its keyword arguments are those that
    `corpus.args` may hold."""
    make: Callable[..., Path] | None = None
    """Writes the corpus into a folder and returns its manifest: `make(folder, seed=..., num_workers=...,
    **args)`. None for a corpus that is read from disk."""


def corpus_names() -> list[str]:
    """Returns the names of the corpora in this folder, in alphabetical order; imports none of them."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if not module.ispkg)


def find_corpus(name: str) -> Corpus:
    """Returns the corpus of one of `corpus_names`, or of `package.module:NAME`.

    Raises:
        ConfigError: the name is not known, or names something else.
    """
    if ":" in name:
        corpus = load_named(name, key="corpus.name", form="package.module:NAME")
    elif name in corpus_names():
        corpus = importlib.import_module(f"{__name__}.{name}").CORPUS
    else:
        raise ConfigError(
            f"corpus {name!r}: not known; allowed are {', '.join(corpus_names())}, and your own as "
            "`package.module:NAME`"
        )
    if not isinstance(corpus, Corpus):
        raise ConfigError(f"corpus {name!r}: is no emotion_task.corpora.Corpus but {corpus!r}")
    return corpus


def load_corpus(name: str, root: str | Path, **args: object) -> list[Utterance]:
    """Lists the utterances of a corpus.

    Args:
        name: as `find_corpus` takes it.
        root: the corpus' folder.
        args: as the loader takes them, for instance `train_speakers` of RAVDESS; and `split_by_speaker`, such
            as 0.8/0.2, which makes splits in the place of the corpus' own.

    Raises:
        ConfigError: unknown corpus, or an argument that its loader does not take.
        DataError: the folder does not hold the corpus, or it has too few speakers for the splits.
    """
    check_args(name, args)
    fractions = parse_fractions(args.pop(_SPLIT)) if _SPLIT in args else None
    listed = find_corpus(name).load(root, **args)
    return listed if fractions is None else split_by_speaker(listed, fractions)


def make_corpus(
    name: str,
    root: str | Path | None,
    folder: str | Path,
    *,
    args: Mapping[str, object],
    seed: int = 0,
    num_workers: int = 2,
) -> Path:
    """Makes the corpus, or lists it, and returns its manifest in `folder`.

    Args:
        name: as `find_corpus` takes it.
        root: the folder that the owner ships; not used by a corpus that is made.
        args: of the maker or loader.

    Raises:
        ConfigError: unknown corpus, or an argument that it does not take.
        DataError: the folder does not hold the corpus.
    """
    corpus, folder = find_corpus(name), Path(folder)
    if corpus.make is not None:
        return corpus.make(folder, seed=seed, num_workers=num_workers, **args)
    listed, manifest = load_corpus(name, str(root), **args), folder / "manifest.jsonl"
    write_manifest(manifest, listed)
    return manifest


def check_args(name: str, args: Iterable[str], *, build: bool = False) -> None:
    """Checks the names of a corpus' arguments.

    Args:
        build: asks for the arguments that the corpus is made with, where it is made.

    Raises:
        ConfigError: the corpus is not known, or takes no argument of such a name.
    """
    corpus = find_corpus(name)
    takes = signature(corpus.make if build and corpus.make is not None else corpus.load).parameters
    allowed = [parameter for parameter in takes if parameter not in _NOT_OF_USERS]
    if corpus.make is None:
        allowed.append(_SPLIT)
    if unknown := sorted(set(args) - set(allowed)):
        raise ConfigError(f"corpus {name!r}: it does not take {unknown}; allowed are {', '.join(allowed)}")
