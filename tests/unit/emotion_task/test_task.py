from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny_models import make_qwen2_5_omni, make_qwen2_audio

from emotion_task.audio_window import model_waveform, trim_silence
from emotion_task.labels import ALL_LABELS
from emotion_task.models.tiny import CHAT_TEMPLATE
from emotion_task.prompt import emotion_messages
from emotion_task.records import Utterance, by_speaker, read_manifest, write_manifest
from emotion_task.task import EmotionTask, choose
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import format_prompt
from rlcore.types import Completion, Group, Score


class Extractor:
    sampling_rate = 16000
    chunk_length = 3


class Processor:
    """Renders the project's own chat template, as a processor would."""

    chat_template = CHAT_TEMPLATE
    feature_extractor = Extractor()

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        from jinja2 import Template

        assert add_generation_prompt and not tokenize
        return Template(self.chat_template).render(messages=messages, add_generation_prompt=True)


def write_tone(path: Path, before: float, tone: float, after: float, rate: int = 16000) -> None:
    rng = np.random.default_rng(0)
    wave = 1e-4 * rng.standard_normal(int((before + tone + after) * rate))
    start = int(before * rate)
    wave[start : start + int(tone * rate)] += 0.3 * np.sin(np.arange(int(tone * rate)) * 0.1)
    soundfile.write(path, wave.astype(np.float32), rate)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    write_tone(tmp_path / "a.wav", 0.5, 1.0, 0.5)
    rows = [
        Utterance(id=f"{split}{i}", audio="a.wav", emotion=emotion, split=split, pitch_level="low")
        for split in ("train", "eval")
        for i, emotion in enumerate(("sad", "happy", "sad", "angry"))
    ]
    rows.append(Utterance(id="bare", audio="a.wav", split="train"))
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path / "m.jsonl"


@pytest.fixture
def task(manifest: Path) -> EmotionTask:
    task = EmotionTask(str(manifest), model_path="unused")
    task.processor = Processor()  # a cached property: nothing is loaded
    return task


def answer(group_prompt, text: str, num_tokens: int = 3) -> Group:
    completion = Completion(
        token_ids=(1,) * num_tokens,
        logprobs=(0.0,) * num_tokens,
        text=text,
        finish_reason="stop",
        policy_version=0,
    )
    return Group(prompt=group_prompt, prompt_token_ids=(1,), completions=(completion,))


def test_a_prompt_holds_audio_question_and_reference(task: EmotionTask, manifest: Path) -> None:
    prompts = task.prompts("train")
    assert [p.id for p in prompts] == ["train0", "train1", "train2", "train3"]
    assert prompts[0].text == (
        "<|im_start|>system\nListen. Think inside <think> </think>, then answer inside <answer> </answer>."
        "<|im_end|>\n<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>What is the emotion of the "
        "speaker? Choose one of: happy, sad, angry.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompts[0].media == {"audio": str(manifest.parent / "a.wav")}
    assert prompts[0].reference["emotion"] == "sad" and prompts[0].reference["pitch_level"] == "low"
    assert "energy_level" not in prompts[0].reference


def test_an_utterance_with_a_video_is_seen_where_that_is_asked_for(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        Image.new("RGB", (60, 40), (50 * number,) * 3).save(frames / f"{number}.png")
    first, *others = read_manifest(manifest)
    write_manifest(manifest, [replace(first, video="frames"), *others])
    model = str(make_qwen2_5_omni(tmp_path / "omni"))
    seen, heard, *_ = EmotionTask(str(manifest), model, video=True).prompts("train")
    assert seen.media == {"video": str(frames), "audio": heard.media["audio"]}
    sound = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    assert seen.text == heard.text.replace(sound, f"<|vision_bos|><|VIDEO|><|vision_eos|>{sound}")
    media = EmotionTask(str(manifest), model, max_seconds=1, max_pixels=600).load_media(seen)
    (video,), (waveform,) = media["videos"], media["audio"]
    assert video.shape == (2, 20, 30, 3) and len(waveform) == 16000
    assert video.mean(axis=(1, 2, 3)).tolist() == [0, 50]
    plain = EmotionTask(str(manifest), model).prompts("train")[0]
    assert plain.text == heard.text and list(plain.media) == ["audio"]

    deaf = EmotionTask(str(manifest), str(make_qwen2_audio(tmp_path / "audio")), video=True)
    with pytest.raises(
        ConfigError, match=r"task.args.video: .*which Qwen2-Audio does not take here; Qwen2.5-O"
    ):
        deaf.prompts("train")


def test_media_are_trimmed_and_mono(task: EmotionTask) -> None:
    media = task.load_media(task.prompts("eval")[0])
    (waveform,) = media["audio"]
    assert media["sampling_rate"] == 16000
    assert waveform.dtype == np.float32 and abs(len(waveform) / 16000 - 1.08) < 0.03


def test_evaluation_of_known_answers(task: EmotionTask) -> None:
    prompts = task.prompts("eval")
    texts = [
        "<think>The pitch is low.</think><answer>sad</answer>",
        "<think>The pitch is high.</think><answer>happy</answer>",
        "<think>Nothing.</think><answer>happy</answer>",
        "angry",
    ]
    groups = [answer(p, text, num_tokens=n) for p, text, n in zip(prompts, texts, (2, 4, 6, 8), strict=True)]
    # Not every score has every part: a gate's reward is not asked of what does not pass.
    parts = ({"gate": 1.0, "factual": 5.0}, {"gate": 1.0, "factual": 2.5}, {"gate": 0.0})
    scores = [Score(value=v, parts=p) for v, p in zip((1.0, 0.5, 0.0), parts, strict=True)]
    scores = [scores[2], *scores[:2], Score(value=0.0, error="no")]
    metrics = task.evaluate(groups, {"reasoning": scores})
    assert metrics["accuracy"] == 0.5 and metrics["format_rate"] == 0.75
    assert metrics["unweighted_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert metrics["pitch_accuracy"] == metrics["prosody_accuracy"] == 0.25
    assert metrics["tokens"] == 5.0
    assert metrics["reward/reasoning"] == 0.5 and metrics["reward/reasoning/factual"] == 3.75
    assert metrics["reward/reasoning/gate"] == pytest.approx(2 / 3)


def test_limits_choose_by_id_and_nest(task: EmotionTask, manifest: Path) -> None:
    rows = task.utterances("train")
    two, three = ({u.id for u in choose(rows, n)} for n in (2, 3))
    assert len(two) == 2 and two < three
    assert {u.id for u in choose(rows[::-1], 2)} == two
    assert len(EmotionTask(str(manifest), "unused", max_eval=1).utterances("eval")) == 1


def test_a_limit_is_at_least_one(manifest: Path) -> None:
    """-1 is meant as all, and would leave one out."""
    with pytest.raises(ConfigError, match="limit of utterances: got -1; allowed is 1 or more"):
        choose(read_manifest(manifest), -1)


def test_a_manifest_takes_no_folders_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; name a file in it"):
        write_manifest(tmp_path, [])
    assert not list(tmp_path.parent.glob("*.tmp"))


def test_training_may_be_about_some_speakers(manifest: Path) -> None:
    rows = [replace(u, speaker=f"s{i % 3}") for i, u in enumerate(read_manifest(manifest))]
    write_manifest(manifest, rows)
    task = EmotionTask(str(manifest), "unused", train_speakers=["s0", "s2"])
    of_s1, others = by_speaker(EmotionTask(str(manifest), "unused").utterances("train"), ["s1"], "")
    assert task.utterances("train") == others and of_s1
    assert {u.speaker for u in task.utterances("eval")} == {"s0", "s1", "s2"}
    with pytest.raises(ConfigError, match=r"train_speakers: no .* by \['x'\]; speakers are \['s0'"):
        EmotionTask(str(manifest), "unused", train_speakers=["x"]).utterances("train")


def test_wrong_manifests_and_splits_are_named(task: EmotionTask, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split: got 'test'"):
        task.prompts("test")
    write_manifest(tmp_path / "x.jsonl", [Utterance(id="1", audio="a.wav", emotion="bored", split="train")])
    with pytest.raises(DataError, match=r"x.jsonl: emotions \['bored'\] are not labels"):
        EmotionTask(str(tmp_path / "x.jsonl"), "unused")
    with pytest.raises(ConfigError, match=r"task.args.labels: \['frustrated'\] are not labels"):
        EmotionTask(str(manifest), "unused", labels=["sad", "frustrated"])
    # No answer is read as `Bored`: all would be wrong.
    write_manifest(tmp_path / "z.jsonl", [Utterance(id="1", audio="a.wav", emotion="Bored", split="train")])
    for labels, told in ((["Bored"], "labels are words in small letters"), ([], "is a list of different")):
        with pytest.raises(ConfigError, match=f"task.args.labels: .*{told}"):
            EmotionTask(str(tmp_path / "z.jsonl"), "unused", labels=labels)
    with pytest.raises(DataError, match="no utterance with split 'eval'"):
        write_manifest(tmp_path / "y.jsonl", [Utterance(id="1", audio="a.wav", emotion="sad", split="train")])
        EmotionTask(str(tmp_path / "y.jsonl"), "unused").utterances("eval")


def test_the_window_cuts_long_speech_and_keeps_noise_free_silence(tmp_path: Path) -> None:
    write_tone(tmp_path / "long.wav", 0.2, 6.0, 0.2, rate=8000)
    assert len(model_waveform(tmp_path / "long.wav", Extractor())) == 48000
    assert len(model_waveform(tmp_path / "long.wav", Extractor(), max_seconds=1.5)) == 24000
    silence = np.zeros(1000, dtype=np.float32)
    assert trim_silence(silence, 16000) is silence


def test_a_processor_without_a_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        format_prompt(object(), emotion_messages(ALL_LABELS))
