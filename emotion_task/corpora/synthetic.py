"""The synthetic corpus: expressive speech made on the spot from a seed, nothing to download.

    folder/corpus.json      settings; written last, so its presence says that the corpus is complete
    folder/manifest.jsonl   one Utterance a line
    folder/design.jsonl     what was asked of the synthesiser (the truth behind the audio)
    folder/audio/*.flac     16 kHz, mono, 16 bit

Speakers and sentences of `train` and `eval` are disjoint. The bytes depend on the settings alone, not
on the number of workers.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from emotion_task.corpora import Corpus
from emotion_task.corpora.manifest import load_manifest
from emotion_task.corpora.synthesis.design import PROFILES, Design, draw_corpus
from emotion_task.corpora.synthesis.espeak import require_synthesis
from emotion_task.corpora.synthesis.render import SAMPLE_RATE, render
from emotion_task.labels import EMOTIONS, check_set
from emotion_task.records import Utterance, write_manifest
from rlcore.errors import ConfigError
from rlcore.records.files import read_json, write_json, write_rows
from rlcore.records.progress import Progress

DEFAULT_SPREAD = 1.0
"""Within-emotion spread at which a classifier on measured prosody is right 81 or 82 times in 100."""

_VERSION = 1
"""Raise when the renderer changes, so that old folders are not reused."""


def build_corpus(
    folder: str | Path,
    *,
    num_train: int = 4000,
    num_eval: int = 600,
    seed: int = 0,
    num_workers: int = 2,
    spread: float = DEFAULT_SPREAD,
    emotions: Sequence[str] = EMOTIONS,
    progress: bool = True,
) -> Path:
    """Builds the corpus, or reuses the folder where it already holds this one complete.

    `num_workers` counts processes; 0 renders in this one. A folder that holds another synthetic corpus,
    or an interrupted one, is rebuilt in place. `emotions` are some of those that have a voice
    (`emotion_task.corpora.synthesis.design.PROFILES`).

    Returns:
        The path of `manifest.jsonl`.
    Raises:
        MissingDependencyError: the extra `synth` is not installed.
        ConfigError: a count is not positive, or an emotion has no voice.
    """
    check_set(emotions, "corpus.args.emotions")
    if unknown := [emotion for emotion in emotions if emotion not in PROFILES]:
        raise ConfigError(
            f"corpus.args.emotions: the synthetic corpus has no voice for {unknown}; it speaks "
            f"{', '.join(PROFILES)}. Choose among these, or list recordings of your own (corpus.name: "
            "manifest)"
        )
    if num_train < 1 or num_eval < 1 or num_workers < 0 or spread <= 0:
        raise ConfigError(
            f"num_train ({num_train}), num_eval ({num_eval}) and spread ({spread}) must be positive, "
            f"num_workers ({num_workers}) not negative"
        )
    folder = Path(folder)
    settings: dict[str, object] = {
        "version": _VERSION,
        "num_train": num_train,
        "num_eval": num_eval,
        "seed": seed,
        "spread": spread,
    }
    if tuple(emotions) != EMOTIONS:
        settings["emotions"] = list(emotions)
    manifest, stamp = folder / "manifest.jsonl", folder / "corpus.json"
    if manifest.is_file() and read_json(stamp) == settings:
        return manifest
    require_synthesis()
    stamp.unlink(missing_ok=True)
    designs = draw_corpus(num_train, num_eval, seed, spread, emotions)
    _render_all(folder / "audio", designs, num_workers, progress)
    write_manifest(manifest, (_utterance(design) for design in designs))
    write_rows(folder / "design.jsonl", map(asdict, designs))
    write_json(stamp, settings)
    return manifest


def _render_all(audio: Path, designs: list[Design], num_workers: int, progress: bool) -> None:
    audio.mkdir(parents=True, exist_ok=True)
    wanted = {f"{design.id}.flac" for design in designs}
    for old in [*audio.glob("train-*.flac"), *audio.glob("eval-*.flac")]:
        if old.name not in wanted:
            old.unlink()
    jobs = [(design, audio / f"{design.id}.flac") for design in designs]
    with Progress(total=len(jobs), desc="synthetic speech", unit="utt", disable=not progress) as bar:
        for _ in _render_files(jobs, num_workers):
            bar.update()


def _render_files(jobs: list[tuple[Design, Path]], num_workers: int) -> Iterator[None]:
    if num_workers == 0:
        yield from map(_render_file, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch, Ray) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(_render_file, jobs, chunksize=16)


def _render_file(job: tuple[Design, Path]) -> None:
    design, path = job
    samples = np.clip(np.round(render(design) * 32767), -32768, 32767).astype(np.int16)
    soundfile.write(path, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def _utterance(design: Design) -> Utterance:
    return Utterance(
        id=f"synthetic-{design.id}",
        audio=f"audio/{design.id}.flac",
        text=design.text,
        text_emotion=design.text_emotion,
        emotion=design.emotion,
        speaker=design.speaker.id,
        dataset="synthetic",
        split=design.split,
        gender=design.speaker.gender,
        stressed_words=[design.text.split()[design.stressed_word]],
    )


CORPUS = Corpus(load=load_manifest, make=build_corpus)
"""The synthetic corpus is made first; then its folder holds a manifest."""
