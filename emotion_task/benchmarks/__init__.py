"""Benchmarks: each file of this folder is one, under the file's name, and holds its record as `BENCHMARK`.

Every corpus of `emotion_task.corpora` is one, too: the emotion of its speakers. A benchmark of your own is
named as `package.module:NAME`. What readers share is in `reading`; models are asked in `asking`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from emotion_task.benchmarks.reading.emotions import emotion_benchmark
from emotion_task.benchmarks.reading.questions import Benchmark
from emotion_task.corpora import corpus_names
from rlcore.config.targets import load_named
from rlcore.errors import ConfigError


def own_names() -> list[str]:
    """Returns the names of the benchmarks in this folder, in alphabetical order; imports none of them."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if not module.ispkg)


def find_benchmark(name: str) -> Benchmark:
    """Returns the benchmark of one of `own_names`, of a corpus' name, or of `package.module:NAME`.

    Raises:
        ConfigError: the name is not known, or names something else.
    """
    if ":" in name:
        benchmark = load_named(name, key="benchmark", form="package.module:NAME")
    elif name in own_names():
        benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    elif name in corpus_names():
        benchmark = emotion_benchmark(name)
    else:
        raise ConfigError(
            f"benchmark {name!r}: not known; allowed are {', '.join(own_names())}, the corpora "
            f"({', '.join(corpus_names())}), and your own as `package.module:NAME`"
        )
    if not isinstance(benchmark, Benchmark):
        raise ConfigError(f"benchmark {name!r}: is no emotion_task.benchmarks.Benchmark but {benchmark!r}")
    return benchmark
