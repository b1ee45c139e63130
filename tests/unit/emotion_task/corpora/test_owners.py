"""Each corpus on a small folder in its owner's exact layout, with real sound files."""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_layouts import LAYOUTS

from emotion_task.corpora import Corpus, corpus_names, emodb, find_corpus, load_corpus
from emotion_task.corpora.reading.tables import owners_text
from emotion_task.labels import ALL_LABELS, EMOTIONS
from rlcore.errors import ConfigError, DataError

OWNERS = {
    name: importlib.import_module(f"emotion_task.corpora.{name}")
    for name in corpus_names()
    if name not in ("manifest", "synthetic")
}


def put(path: Path, seconds: float = 0.1, rate: int = 16000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate))[:, None] / rate
    # Channel c is a tone of (c + 1) * 100 Hz, so that a cut shows where it was made.
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 100 * (1 + np.arange(channels)) * time), rate)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.mark.parametrize("name", OWNERS)
def test_the_table_of_labels(name):
    corpus = OWNERS[name]
    assert set(corpus.LABELS.values()) <= set(ALL_LABELS if name == "ravdess" else EMOTIONS)
    dropped = getattr(corpus, "DROPPED", {})
    assert not set(corpus.LABELS) & set(dropped)
    assert all(dropped.values())


@pytest.mark.parametrize("name", sorted(set(OWNERS)))
def test_a_wrong_folder_is_told_the_layout(name, tmp_path):
    with pytest.raises(DataError, match=r"absent: no such folder\. Expected is"):
        load_corpus(name, tmp_path / "absent")
    with pytest.raises(DataError, match="Expected is"):
        load_corpus(name, tmp_path)


def test_every_file_of_the_folder_is_a_corpus_that_is_tried_here():
    assert all(isinstance(find_corpus(name), Corpus) for name in corpus_names())
    tried = {name.removeprefix("test_").split("_reads")[0] for name in globals()}
    assert set(OWNERS) - tried == {"ravdess", "emotioncot", *LAYOUTS}  # test_ravdess.py, test_layouts.py
    assert set(corpus_names()) - set(OWNERS) == {"manifest", "synthetic"}


def test_iemocap(tmp_path, caplog):
    caplog.set_level("INFO")
    for session, dialogue in ((1, "Ses01F_impro01"), (5, "Ses05M_script01_1")):
        folder = tmp_path / f"Session{session}"
        write(
            folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt",
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            f"[6.2901 - 8.2357]\t{dialogue}_F000\texc\t[2.5000, 2.5000, 2.5000]\n"
            "C-E2:\tNeutral;\t()\n\n"
            f"[10.0100 - 11.3925]\t{dialogue}_M000\tneu\t[2.5000, 2.5000, 2.5000]\n\n"
            f"[14.8872 - 18.0175]\t{dialogue}_F001\tfru\t[2.0000, 2.5000, 2.5000]\n"
            f"[18.8872 - 19.0175]\t{dialogue}_F002\txxx\t[2.0000, 2.5000, 2.5000]\n",
        )
        write(folder / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt", "\0\0Mac")
        write(
            folder / "dialog" / "transcriptions" / f"{dialogue}.txt",
            f"{dialogue}_F000 [006.2901-008.2357]: [LAUGHTER] Excuse me.\n"
            f"{dialogue}_M000 [010.0100-011.3925]: Yeah.\nM: Mmhm.\n",
        )
        for turn in ("F000", "M000"):
            put(folder / "sentences" / "wav" / dialogue / f"{dialogue}_{turn}.wav")
    rows = load_corpus("iemocap", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.gender, u.split, u.text) for u in rows] == [
        ("iemocap-Ses01F_impro01_F000", "happy", "iemocap-Ses01F", "female", "train", "Excuse me."),
        ("iemocap-Ses01F_impro01_M000", "neutral", "iemocap-Ses01M", "male", "train", "Yeah."),
        ("iemocap-Ses05M_script01_1_F000", "happy", "iemocap-Ses05F", "female", "eval", "Excuse me."),
        ("iemocap-Ses05M_script01_1_M000", "neutral", "iemocap-Ses05M", "male", "eval", "Yeah."),
    ]
    assert all(Path(u.audio).is_file() and u.dataset == "iemocap" and u.language == "en" for u in rows)
    assert "2 fru (frustration is none of the nine, and is not anger)" in caplog.text
    assert rows[0].extra == {"valence": 2.5, "activation": 2.5, "dominance": 2.5}
    assert "2 xxx (the annotators did not agree)" in caplog.text
    for first in (1, "1"):
        splits = [u.split for u in load_corpus("iemocap", tmp_path, eval_sessions=[first])]
        assert splits == ["eval"] * 2 + ["train"] * 2
    with pytest.raises(ConfigError, match=r"eval_sessions: got 4; it is a list, \[4\] for one"):
        load_corpus("iemocap", tmp_path, eval_sessions=4)


def test_owners_texts_keep_their_letters(tmp_path):
    """Windows wrote some lists and transcripts; no letter may become U+FFFD."""
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n" + "caf\u00e9,\u2019s".encode() + b"\n" + b"caf\xe9,it\x92s\n")
    assert owners_text(path) == "a,b\r\ncaf\u00e9,\u2019s\ncaf\u00e9,it\u2019s\n"
    for damaged, number in ((b"a\nb\n\x81\xff\n", 3), ("a,b\n".encode("utf-16"), 1)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"list\.csv:{number}: neither UTF-8 nor Windows-1252"):
            owners_text(path)


MELD_COLUMNS = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)


def test_meld(tmp_path, caplog):
    caplog.set_level("INFO")
    times = ("negative", 0, 0, 4, 7, "00:20:57,256", "00:21:00,049")
    rows = {
        "train": [
            ("It\u0092s over, really.", "Ross", "sadness"),
            ("Hey!", "All", "joy"),
            ("Hi.", "Guy", "joy"),
        ],
        "dev": [("What?", "Monica", "surprise")],
        "test": [
            ("No.", "Rachel and Joey", "anger"),
            ("Yes.", "Rachel", "anger"),
            ("Eww.", "Joey", "disgust"),
        ],
    }
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for part, said in rows.items():
        write_csv(
            tmp_path / part / f"{part}_sent_emo.csv",
            MELD_COLUMNS,
            [(i, *each, *times[:1], 3, i, *times[3:]) for i, each in enumerate(said)],
        )
        for i in range(len(said)):
            put(tmp_path / part / folders[part] / f"dia3_utt{i}.wav")
            write(tmp_path / part / folders[part] / f"dia3_utt{i}.mp4", "video")
            write(tmp_path / part / folders[part] / f"._dia3_utt{i}.mp4", "junk")
    (tmp_path / "test" / folders["test"] / "dia3_utt2.wav").unlink()
    (tmp_path / "test" / folders["test"] / "dia3_utt2.mp4").unlink()
    found = load_corpus("meld", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.gender, u.split, u.text) for u in found] == [
        ("meld-train-dia3_utt0", "sad", "meld-Ross", "male", "train", "It\u2019s over, really."),
        ("meld-train-dia3_utt2", "happy", "meld-Guy", None, "train", "Hi."),
        ("meld-dev-dia3_utt0", "surprise", "meld-Monica", "female", None, "What?"),
        ("meld-test-dia3_utt1", "angry", "meld-Rachel", "female", "eval", "Yes."),
    ]
    assert all(u.audio.endswith(".wav") for u in found)
    listed = tmp_path / "train" / "train_sent_emo.csv"
    listed.write_bytes(listed.read_bytes().replace("\u0092".encode(), b"\x92"))
    assert load_corpus("meld", tmp_path) == found
    assert "2 several speakers at once, 1 listed without a clip" in caplog.text
    write_csv(tmp_path / "train" / "train_sent_emo.csv", "Utterance,Speaker", [])
    with pytest.raises(DataError, match=r"train_sent_emo.csv: the columns \['Dialogue_ID', 'Emotion'"):
        load_corpus("meld", tmp_path)


def test_savee(tmp_path, caplog):
    caplog.set_level("INFO")
    for path in ("AudioData/DC/sa01.wav", "AudioData/KL/su15.wav", "ALL/JE_h09.wav", "ALL/hiss.wav"):
        put(tmp_path / path)
    found = load_corpus("savee", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.split, u.gender, u.age_level) for u in found] == [
        ("savee-JE-h09", "happy", "savee-JE", "train", "male", "young"),
        ("savee-DC-sa01", "sad", "savee-DC", "train", "male", "young"),
        ("savee-KL-su15", "surprise", "savee-KL", "eval", "male", "young"),
    ]
    assert "1 not named as recordings of SAVEE are" in caplog.text
    # Whom a misspelt name means would be trained on.
    with pytest.raises(ConfigError, match=r"no recording is of \['KLL'\]; the corpus has DC, JE, KL"):
        load_corpus("savee", tmp_path, eval_speakers=["KLL", "JE"])
    with pytest.raises(ConfigError, match=r"got 'KL'; it is a list, \[KL\] for one"):
        load_corpus("savee", tmp_path, eval_speakers="KL")
    (tmp_path / "AudioData/KL/su15.wav").unlink()
    load_corpus("savee", tmp_path)
    assert "no utterance is in the split 'eval'" in caplog.text


def test_emodb(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("03a01Fa", "16b10Wb", "08a02La", "16a05Nd"):
        put(tmp_path / "wav" / f"{name}.wav")
    found = load_corpus("emodb", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.split, u.gender, u.text) for u in found] == [
        ("emodb-03a01Fa", "happy", "emodb-03", "train", "male", "Der Lappen liegt auf dem Eisschrank."),
        ("emodb-16a05Nd", "neutral", "emodb-16", "eval", "female", emodb.TEXTS["a05"]),
        ("emodb-16b10Wb", "angry", "emodb-16", "eval", "female", emodb.TEXTS["b10"]),
    ]
    assert {u.language for u in found} == {"de"} and "1 L (boredom is none of the nine)" in caplog.text
    for third in (3, "3", "03"):  # YAML reads 03 as 3, and 08 as text
        found = load_corpus("emodb", tmp_path, eval_speakers=[third])
        assert [u.split for u in found] == ["eval", "train", "train"]


def test_ears(tmp_path, caplog):
    caplog.set_level("INFO")
    for speaker in ("p001", "p100", "p107"):
        names = ("emo_anger_sentences", "emo_anger_freeform", "emo_cuteness_sentences", "rainbow_01_whisper")
        for name in (*names, "sentences_02_loud", "vegetative_cough", "freeform_speech_01"):
            put(tmp_path / speaker / f"{name}.wav", rate=48000)
    write(tmp_path / "transcripts.json", json.dumps({"emo_anger_sentences": "I'm so mad right now."}))
    people = {"p001": {"age": "36-45", "gender": "male"}, "p100": {"age": "66-75", "gender": "non-binary"}}
    write(tmp_path / "speaker_statistics.json", json.dumps(people))
    found = load_corpus("ears", tmp_path)
    assert [(u.id, u.emotion, u.split, u.gender, u.age_level, u.text) for u in found[:4]] == [
        ("ears-p001-emo_anger_freeform", "angry", "train", "male", "middle-aged", None),
        ("ears-p001-emo_anger_sentences", "angry", "train", "male", "middle-aged", "I'm so mad right now."),
        ("ears-p001-rainbow_01_whisper", "whisper", "train", "male", "middle-aged", None),
        ("ears-p100-emo_anger_freeform", "angry", None, None, "elderly", None),
    ]
    assert Counter(u.split for u in found) == {"train": 3, None: 3, "eval": 3}
    assert "3 cuteness (none of the nine)" in caplog.text and "6 freeform talk" in caplog.text
    assert "3 loud (a way of reading, no emotion was asked for)" in caplog.text


def test_mead(tmp_path):
    for path in ("M003/audio/contempt/level_2", "W040/audio/neutral/level_1", "W009/audio/fear/level_3"):
        put(tmp_path / path / "001.wav")
    write(tmp_path / "M003/audio/contempt/level_2/002.m4a", "sound")
    found = load_corpus("mead", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.split, u.gender) for u in found] == [
        ("mead-M003-contempt-2-001", "disgust", "mead-M003", "train", "male"),
        ("mead-M003-contempt-2-002", "disgust", "mead-M003", "train", "male"),
        ("mead-W009-fear-3-001", "fear", "mead-W009", "train", "female"),
        ("mead-W040-neutral-1-001", "neutral", "mead-W040", "eval", "female"),
    ]
    assert [Path(u.audio).suffix for u in found] == [".wav", ".m4a", ".wav", ".wav"]


def test_msp_podcast(tmp_path, caplog):
    caplog.set_level("INFO")
    write_csv(
        tmp_path / "Labels" / "labels_consensus.csv",
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set",
        [
            ("MSP-PODCAST_0001_0008.wav", "N", 2.2, 4.0, 2.6, 30, "Male", "Train"),
            ("MSP-PODCAST_0001_0009.wav", "C", 3.8, 3.6, 3.8, 39, "Female", "Test1"),
            ("MSP-PODCAST_0002_0001.wav", "U", 3.8, 3.6, 3.8, "Unknown", "Unknown", "Development"),
            ("MSP-PODCAST_0002_0002.wav", "A", 3.8, 3.6, 3.8, 41, "Male", "Test2"),
            ("MSP-PODCAST_0002_0003.wav", "X", 3.8, 3.6, 3.8, 41, "Male", "Test3"),
            ("MSP-PODCAST_0002_0004.wav", "O", 3.8, 3.6, 3.8, 41, "Male", "Train"),
        ],
    )
    put(tmp_path / "Audios" / "MSP-PODCAST_0001_0008.wav")
    write(tmp_path / "Transcripts" / "MSP-PODCAST_0001_0008.txt", "")
    (tmp_path / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_bytes(b"And then we left the caf\xe9.\n")
    found = load_corpus("msp_podcast", tmp_path)
    assert [(u.emotion, u.speaker, u.gender, u.split, u.text) for u in found] == [
        ("neutral", "msp_podcast-30", "male", "train", "And then we left the caf\u00e9."),
        ("disgust", "msp_podcast-39", "female", "eval", None),
        ("surprise", None, None, None, None),
        ("angry", "msp_podcast-41", "male", None, None),
    ]
    assert found[0].extra == {"activation": 2.2, "valence": 4.0, "dominance": 2.6}
    assert "1 X (the annotators did not agree" in caplog.text and "1 O (other)" in caplog.text
    both = load_corpus("msp_podcast", tmp_path, eval_sets=["Test1", "Test2"])
    assert [u.split for u in both] == ["train", "eval", None, "eval"]
    with pytest.raises(ConfigError, match=r"eval_sets: got 'Test1'; it is a list"):
        load_corpus("msp_podcast", tmp_path, eval_sets="Test1")


@pytest.fixture
def expresso_root(tmp_path):
    root = tmp_path / "expresso"
    for name, style in (("ex04_happy_00085", "happy"), ("ex03_default_emphasis_00010", "default")):
        put(root / "audio_48khz" / "read" / name[:4] / style / "base" / f"{name}.wav")
    put(root / "audio_48khz" / "read/ex01/narration/base/ex01_narration_00001.wav")
    pair = root / "audio_48khz" / "conversational" / "ex04-ex01"
    put(pair / "sad-sympathetic" / "ex04-ex01_sad-sympathetic_003.wav", 40, rate=2000, channels=2)
    put(pair / "angry" / "ex04-ex01_angry_005.wav", 4, rate=2000, channels=2)
    write(root / "splits/train.txt", "# names\nex04_happy_00085\nex04-ex01_sad-sympathetic_003\t(20.0s,)\n")
    write(root / "splits/dev.txt", "ex01_narration_00001\nex04-ex01_sad-sympathetic_003\t(,20.0s)\n")
    write(root / "splits/test.txt", "ex03_default_emphasis_00010\nex04-ex01_angry_005\t(,60.0s)\n")
    write(
        root / "read_transcriptions.txt",
        "ex04_happy_00085\tWhat a day!\nex03_default_emphasis_00010\tI *really* like it.\n",
    )
    write(
        root / "VAD_segments.txt",
        "ex04-ex01_sad-sympathetic_003/channel1\t(1.0, 3.5) (18.0, 38.0)\n"
        "ex04-ex01_sad-sympathetic_003/channel2\t(5.0, 6.0)\n"
        "ex04-ex01_angry_005/channel1\t(0.5, 1.5)\nex04-ex01_angry_005/channel2\t(2.0, 2.2) (2.5, 3.5)\n",
    )
    return root


def test_expresso_reads(expresso_root, caplog):
    caplog.set_level("INFO")
    happy, stressed = load_corpus("expresso", expresso_root)
    assert (happy.id, happy.emotion, happy.speaker, happy.gender, happy.split, happy.text) == (
        *("expresso-ex04_happy_00085", "happy", "expresso-ex04", "female", "train", "What a day!"),
    )
    assert (stressed.emotion, stressed.split, stressed.text) == ("neutral", "eval", "I really like it.")
    assert stressed.stressed_words == ["really"] and happy.stressed_words is None
    assert "1 narration (a manner of speaking)" in caplog.text and "cut_to=FOLDER" in caplog.text


def test_expresso_cuts_turns_by_channel_and_split(expresso_root, tmp_path):
    everything = load_corpus("expresso", expresso_root, cut_to=str(tmp_path / "turns"))
    found = [u for u in everything if "-ex01_" in u.id]
    by_id = {u.id.removeprefix("expresso-ex04-ex01_"): u for u in found}
    assert {id: (u.speaker[-4:], u.emotion, u.split) for id, u in by_id.items() if "angry" in id} == {
        "angry_005-ex04-0000.50": ("ex04", "angry", "eval"),
        "angry_005-ex01-0002.50": ("ex01", "angry", "eval"),
    }
    sad = {id[-7:]: (u.split, soundfile.info(u.audio).duration) for id, u in by_id.items() if "sad" in id}
    # Sympathetic is none of the nine; 18 to 38 s lies astride the official border, and 18 s are cut once.
    assert sad == {
        "0001.00": (None, 2.5),
        "0018.00": (None, 2.0),
        "0020.00": ("train", 15.0),
        "0035.00": ("train", 3.0),
    }
    samples, rate = soundfile.read(by_id["angry_005-ex01-0002.50"].audio)
    assert np.argmax(np.abs(np.fft.rfft(samples))) / len(samples) * rate == pytest.approx(200)
    kept = Path(found[0].audio).stat().st_mtime_ns
    again = load_corpus("expresso", expresso_root, cut_to=str(tmp_path / "turns"))
    assert again == everything and Path(found[0].audio).stat().st_mtime_ns == kept
    pair = expresso_root / "audio_48khz" / "conversational" / "ex04-ex01"
    put(pair / "angry" / "ex04-ex01_angry_005.wav", 4, rate=4000, channels=2)
    load_corpus("expresso", expresso_root, cut_to=str(tmp_path / "turns"))
    assert soundfile.info(by_id["angry_005-ex01-0002.50"].audio).samplerate == 4000


def test_expresso_leaves_out_a_turn_that_cannot_be_cut(expresso_root, tmp_path, caplog):
    pair = expresso_root / "audio_48khz" / "conversational" / "ex04-ex01"
    put(pair / "angry" / "ex04-ex01_angry_005.wav", 4, rate=2000, channels=1)  # the second speaker is missing
    (pair / "sad-sympathetic" / "ex04-ex01_sad-sympathetic_003.wav").write_bytes(b"RIFF")
    caplog.set_level("INFO")
    found = load_corpus("expresso", expresso_root, cut_to=str(tmp_path / "turns"))
    assert [u.id for u in found if "-ex01_" in u.id] == ["expresso-ex04-ex01_angry_005-ex04-0000.50"]
    assert "5 turn that cannot be cut" in caplog.text
    assert "ex04-ex01_angry_005.wav: no turn can be cut at 2.50 s" in caplog.text


def test_expresso_leaves_out_a_turn_that_its_recording_does_not_hold_whole(expresso_root, tmp_path, caplog):
    pair = expresso_root / "audio_48khz" / "conversational" / "ex04-ex01"
    put(pair / "angry" / "ex04-ex01_angry_005.wav", 3, rate=2000, channels=2)  # of 3.5 s
    found = load_corpus("expresso", expresso_root, cut_to=str(tmp_path / "turns"))
    angry = [u.id for u in found if "angry" in u.id]
    assert angry == ["expresso-ex04-ex01_angry_005-ex04-0000.50"]
    told = "no turn can be cut at 2.50 s: truncated: the recording ends 0.50 s before its turn"
    assert told in caplog.text


@pytest.mark.parametrize(
    ("reader", "list_name", "header"),
    [
        ("meld", "train_sent_emo.csv", "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID"),
        ("msp_podcast", "Labels/labels_consensus.csv", "FileName,EmoClass,SpkrID,Gender,Split_Set"),
    ],
)
def test_an_owners_list_that_is_cut_or_unclosed_is_named(tmp_path, reader, list_name, header):
    put(tmp_path / "train_splits" / "dia0_utt0.wav")
    (tmp_path / "Audios").mkdir()
    for row, message in (('"a,b,c,0,0\nd,e,f,0,1', ":2: not CSV"), ("a,b,c", ":2: fewer cells than columns")):
        write(tmp_path / list_name, f"{header}\n{row}\n")
        with pytest.raises(DataError, match=f"{Path(list_name).name}{message}"):
            load_corpus(reader, tmp_path)


@pytest.mark.parametrize("name", OWNERS)
def test_the_documentation_names_every_label(name):
    table = (Path(__file__).resolve().parents[4] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    table = table.split("| corpus | to our labels | left out |")[1]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
    pairs = {
        (label, words[-1])
        for words in (part.split() for part in re.split("[,;]", row.split("|")[2]))
        for label in words[:-1]
    }
    assert set(OWNERS[name].LABELS.items()) <= pairs
