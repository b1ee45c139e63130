"""The synthetic corpus: the same bytes from the same seed, and what was asked for is what is heard."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from emotion_task.corpora import load_corpus, make_corpus
from emotion_task.corpora.synthesis import espeak, spoken_texts
from emotion_task.corpora.synthesis.design import draw_corpus, draw_speakers
from emotion_task.labels import EMOTIONS
from rlcore.errors import ConfigError, MissingDependencyError

pytestmark = pytest.mark.slow


def test_splits_share_no_speaker_and_no_sentence():
    designs = draw_corpus(2000, 500, seed=3, spread=1.0)
    train, held_out = designs[:2000], designs[2000:]
    assert not {d.speaker.id for d in train} & {d.speaker.id for d in held_out}
    assert not {d.text for d in train} & {d.text for d in held_out}
    every = [
        {text for texts in split.values() for text in texts}
        for split in (spoken_texts.TRAIN, spoken_texts.EVAL)
    ]
    assert not every[0] & every[1]
    assert len({d.id for d in designs}) == 2500


def test_emotions_are_balanced_and_words_agree_or_not():
    designs = draw_corpus(1800, 9, seed=0, spread=1.0)[:1800]
    assert Counter(d.emotion for d in designs) == dict.fromkeys(EMOTIONS, 200)
    loaded = [d for d in designs if d.emotion != "neutral"]
    share = Counter(
        "neutral" if d.text_emotion == "neutral" else "same" if d.text_emotion == d.emotion else "other"
        for d in loaded
    )
    assert share["neutral"] / len(loaded) == pytest.approx(0.70, abs=0.04)
    assert share["same"] / len(loaded) == pytest.approx(0.15, abs=0.03)
    assert share["other"] / len(loaded) == pytest.approx(0.15, abs=0.03)


def test_emotions_overlap_the_more_the_larger_the_spread():
    def overlap(spread: float) -> float:
        """Share of happy utterances that lie nearer to the level of angry."""
        designs = draw_corpus(3000, 9, seed=1, spread=spread)
        happy = np.array([d.level_st for d in designs if d.emotion == "happy"])
        return float(np.mean(happy < (3.5 + 2.0) / 2))

    assert 0.25 < overlap(1.0) < 0.40  # one standard deviation apart, nearly: neither told apart nor the same
    assert overlap(0.3) < 0.10


def test_the_design_is_a_function_of_the_seed():
    assert draw_corpus(20, 5, seed=1, spread=1.0) == draw_corpus(20, 5, seed=1, spread=1.0)
    assert draw_corpus(20, 5, seed=1, spread=1.0) != draw_corpus(20, 5, seed=2, spread=1.0)


def test_some_emotions_are_drawn_alone():
    six = ["angry", "disgust", "fear", "happy", "neutral", "sad"]
    designs = draw_corpus(60, 6, seed=0, spread=1.0, emotions=six)
    assert Counter(d.emotion for d in designs) == dict.fromkeys(six, 11)


@pytest.mark.parametrize(
    ("emotions", "told"),
    [
        (
            ["happy", "sarcasm", "calm"],
            r"no voice for \['sarcasm', 'calm'\]; it speaks neutral, happy, .* fear\.",
        ),
        ("happy", r"got 'happy'; it is a list of different labels"),
    ],
)
def test_an_emotion_without_a_voice_is_refused(tmp_path, emotions, told):
    with pytest.raises(ConfigError, match=rf"corpus.args.emotions: .*{told}"):
        make_corpus("synthetic", None, tmp_path, args={"emotions": emotions, "num_train": 9, "num_eval": 9})
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    from emotion_task.corpora.synthetic import build_corpus

    monkeypatch.setattr(espeak.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[synth\]'"):
        build_corpus(tmp_path, num_train=1, num_eval=1, progress=False)


class TestRendered:
    """Needs the extra `synth`."""

    @pytest.fixture(autouse=True)
    def _extra(self):
        pytest.importorskip("parselmouth")
        pytest.importorskip("espeakng_loader")

    def test_the_same_bytes_whatever_the_workers(self, tmp_path):
        from emotion_task.corpora.synthetic import build_corpus

        def digest(folder: str, **settings) -> dict[str, str]:
            build_corpus(tmp_path / folder, num_train=18, num_eval=3, progress=False, **settings)
            files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
            return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

        alone = digest("alone", seed=5, num_workers=0)
        assert len(alone) == 18 + 3 + 3
        assert digest("pooled", seed=5, num_workers=2) == alone
        assert digest("other", seed=6, num_workers=0) != alone

    def test_every_voice_says_the_same_twice(self):
        def say(speaker):
            with espeak.Espeak.fresh(7) as library:
                return library.speak("Shoes and fish on the table.", speaker.voice, 150).waveform

        speakers = [speaker for split in draw_speakers(0).values() for speaker in split]
        first = [say(speaker) for speaker in speakers]
        again = [say(speaker) for speaker in reversed(speakers)][::-1]
        differing = [s.id for s, a, b in zip(speakers, first, again, strict=True) if not np.array_equal(a, b)]
        assert differing == []

    def test_a_complete_folder_is_reused_and_another_rebuilt(self, tmp_path):
        from emotion_task.corpora.synthetic import build_corpus

        settings = {"num_train": 4, "num_eval": 1, "num_workers": 0, "progress": False}
        manifest = build_corpus(tmp_path, seed=0, **settings)
        audio = tmp_path / "audio" / "train-00000.flac"
        os.utime(audio, (1, 1))
        assert build_corpus(tmp_path, seed=0, **settings) == manifest
        assert audio.stat().st_mtime == 1
        build_corpus(tmp_path, seed=1, **{**settings, "num_train": 3})
        assert audio.stat().st_mtime > 1
        assert len(list((tmp_path / "audio").iterdir())) == 4
        (tmp_path / "corpus.json").unlink()  # an interrupted build
        os.utime(audio, (1, 1))
        build_corpus(tmp_path, seed=1, **{**settings, "num_train": 3})
        assert audio.stat().st_mtime > 1
        with pytest.raises(ConfigError, match=r"num_train \(0\)"):
            build_corpus(tmp_path, seed=1, **{**settings, "num_train": 0})

    def test_the_manifest_tells_what_was_designed(self, tmp_path):
        from emotion_task.corpora.synthetic import build_corpus

        build_corpus(tmp_path, num_train=3, num_eval=2, seed=0, num_workers=0, progress=False)
        designs = [json.loads(line) for line in (tmp_path / "design.jsonl").read_text().splitlines()]
        utterances = load_corpus("synthetic", tmp_path)
        assert [u.split for u in utterances] == ["train"] * 3 + ["eval"] * 2
        for utterance, design in zip(utterances, designs, strict=True):
            assert utterance.emotion == design["emotion"] and utterance.text_emotion == design["text_emotion"]
            assert utterance.stressed_words == [design["text"].split()[design["stressed_word"]]]
            info = soundfile.info(utterance.audio)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert 0.5 < info.duration < 3.0

    def test_what_was_asked_for_is_measured(self):
        from emotion_task.corpora.synthesis.render import render
        from emotion_task.prosody.measure import measure

        designs = [replace(d, whispered=False) for d in draw_corpus(36, 1, seed=2, spread=1.0)[:36]]
        measured = [measure(render(d), 16000, d.text) for d in designs]
        assert all(m.f0_reliable for m in measured)
        errors = [
            12 * np.log2(m.f0_median_hz / d.speaker.f0_hz) - d.level_st
            for d, m in zip(designs, measured, strict=True)
        ]
        assert np.median(np.abs(errors)) < 0.8
        heard = [m.level_dbfs for m in measured]
        assert np.corrcoef([d.energy_db + d.speaker.gain_db for d in designs], heard)[0, 1] > 0.95
        heard = [m.articulation_rate for m in measured]
        assert np.corrcoef([np.exp(d.log_rate + d.speaker.log_rate) for d in designs], heard)[0, 1] > 0.5
        for contour in ("falling", "rising", "rising-falling", "falling-rising"):
            shaped = [replace(d, contour=contour, range_st=7.0) for d in designs[:8]]
            heard = [measure(render(d), 16000).intonation for d in shaped]
            assert heard.count(contour) >= 7, (contour, heard)

    def test_whispering_has_no_pitch(self):
        from emotion_task.corpora.synthesis.render import render
        from emotion_task.prosody.measure import measure

        designs = [replace(d, whispered=True) for d in draw_corpus(30, 1, seed=2, spread=1.0)[:30]]
        assert np.mean([measure(render(d), 16000).f0_reliable for d in designs]) < 0.1
