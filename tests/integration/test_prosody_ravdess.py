"""Recorded speech: RAVDESS, whose actors say each sentence with normal and with strong intensity."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import wilcoxon

from emotion_task.corpora import load_corpus
from emotion_task.prosody.annotation import annotate
from emotion_task.records import read_manifest

pytestmark = pytest.mark.integration

ANGRY, NORMAL, STRONG = "05", "01", "02"


def test_nothing_is_lost_and_what_actors_do_is_measured(tmp_path):
    root = os.environ.get("RAVDESS_ROOT")
    if root is None:
        pytest.skip("RAVDESS_ROOT is not set")
    utterances = load_corpus("ravdess", root)
    report = annotate(utterances, tmp_path, num_workers=0, progress=False)
    found = read_manifest(report.manifest)
    assert report.num_annotated + report.num_quarantined == len(utterances)
    assert [u.id for u in found] == [u.id for u in utterances]

    median = {
        gender: np.median([u.measured["f0_median_hz"] for u in found if u.gender == gender and u.pitch_level])
        for gender in ("male", "female")
    }
    assert 80 < median["male"] < 180 < median["female"] < 320
    assert 5 < 12 * np.log2(median["female"] / median["male"]) < 14

    # The same actor, sentence and repetition, angry with normal and with strong intensity.
    level = {}
    for utterance in found:
        _, _, emotion, intensity, *take = utterance.id.removeprefix("ravdess-").split("-")
        if emotion == ANGRY:
            level[intensity, tuple(take)] = utterance.measured["level_dbfs"]
    takes = [take for intensity, take in level if intensity == NORMAL]
    louder = np.array([level[STRONG, take] - level[NORMAL, take] for take in takes])
    assert len(louder) == len(utterances) // 15
    assert np.median(louder) > 6
    assert wilcoxon(louder, alternative="greater").pvalue < 1e-6
