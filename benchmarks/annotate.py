"""Measures annotation throughput: process time of measuring, and what a second node adds.

    python -m benchmarks.annotate [--quick] [--json FILE] [--gate]

Workload: utterances of 3 s of speech, made by the synthetic corpus's voices, as 16 kHz FLAC. Goals: 60
utterances per second of process time on one core with all signal features, reading the file included; two
nodes of a CPU each finish at least 1.8 times as many per second as one (this needs two idle cores).
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import ray
import soundfile
from ray.cluster_utils import Cluster

from benchmarks.report import Row, finish, parse_arguments
from emotion_task.corpora.synthesis.design import draw_corpus
from emotion_task.corpora.synthesis.render import SAMPLE_RATE, render
from emotion_task.prosody.annotation import measure_corpus
from emotion_task.prosody.files import MeasureConfig, measure_file
from emotion_task.records import Utterance

SECONDS = 3.0
PER_CORE, SECOND_NODE = 60.0, 1.8
CONFIGS = {
    "signal features": MeasureConfig(),
    "and speaker": MeasureConfig(speaker_classifier="emotion_task.prosody.speaker:PitchGender"),
    "and stress": MeasureConfig(aligner="emotion_task.prosody.align:SynthesisAligner"),
}


def make_files(folder: Path, count: int) -> list[Utterance]:
    """Writes `count` recordings of two or three sentences each, cut at 3 s, and returns their utterances."""
    designs = iter(draw_corpus(4 * count, 1, 0, 1.0))
    utterances = []
    for index in range(count):
        waveform, words = np.zeros(0), []
        while len(waveform) < SECONDS * SAMPLE_RATE:
            design = next(designs)
            waveform, words = np.concatenate([waveform, render(design)]), [*words, design.text]
        path = folder / f"{index}.flac"
        soundfile.write(path, waveform[: int(SECONDS * SAMPLE_RATE)], SAMPLE_RATE)
        utterances.append(Utterance(id=str(index), audio=str(path), text=" ".join(words), gender="male"))
    return utterances


def process_rate(utterances: list[Utterance], config: MeasureConfig) -> float:
    """Returns the utterances measured per second of this process's CPU time."""
    measure_file(utterances[0], config)  # imports and tables
    began = time.process_time()
    for utterance in utterances:
        _, reason = measure_file(utterance, config)
        assert reason is None, reason
    return len(utterances) / (time.process_time() - began)


@contextmanager
def local_cluster(num_nodes: int) -> Iterator[None]:
    """Starts Ray nodes of one CPU each on this machine, held to a core each: Praat takes every core that it
    sees."""
    cores = os.sched_getaffinity(0)
    cluster = Cluster()
    try:
        for core in itertools.islice(itertools.cycle(sorted(cores)), num_nodes):
            os.sched_setaffinity(0, {core})  # what is started now inherits it
            cluster.add_node(num_cpus=1, include_dashboard=False)
        os.sched_setaffinity(0, cores)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        os.sched_setaffinity(0, cores)
        ray.shutdown()
        cluster.shutdown()


def cluster_rate(utterances: list[Utterance], num_nodes: int, folder: Path) -> float:
    """Returns the utterances measured per second of wall time, once every node has started its worker."""
    with local_cluster(num_nodes):
        warm = utterances[: 128 * num_nodes]
        measure_corpus(warm, folder / f"warm{num_nodes}", progress=False)
        began = time.perf_counter()
        measure_corpus(utterances, folder / f"nodes{num_nodes}", progress=False)
        return len(utterances) / (time.perf_counter() - began)


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder, 64 if arguments.quick else 256)
        rows: list[Row] = [
            {"workload": workload, "utterances": len(files), "per_s": process_rate(files, config)}
            for workload, config in CONFIGS.items()
        ]
        # The same files under more names: enough work that starting and ending do not count.
        repeats = 4 if arguments.quick else 24
        many = [
            Utterance(id=f"{utterance.id}-{copy}", audio=utterance.audio, text=utterance.text)
            for copy in range(repeats)
            for utterance in files
        ]
        for num_nodes in (1, 2):
            rate = cluster_rate(many, num_nodes, folder)
            rows.append({"workload": f"{num_nodes} nodes", "utterances": len(many), "per_s": rate})
    speedup = float(rows[-1]["per_s"]) / float(rows[-2]["per_s"])
    headline = {"per_core_s": float(rows[0]["per_s"]), "second_node": speedup}
    goals = {
        f"{PER_CORE:g} utterances per second of process time": headline["per_core_s"] >= PER_CORE,
        f"a second node adds {SECOND_NODE:g}x": speedup >= SECOND_NODE,
    }
    finish("annotate", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
