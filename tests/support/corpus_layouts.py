"""Small folders in the layouts of corpora whose recordings' names tell nearly all."""

from __future__ import annotations

from typing import Any, NamedTuple


class Layout(NamedTuple):
    recordings: tuple[str, ...]
    """Paths below the root; the last one is named as none of the corpus is."""
    texts: dict[str, bytes]
    """Content of the owner's other files, by path."""
    found: dict[str, dict[str, Any]]
    """What the reader has to find: fields by id without the corpus' name."""
    left_out: tuple[str, ...]
    """What the log has to tell."""


def answers(*rows: tuple[object, ...]) -> bytes:
    """CMU-MOSEI's answers: video, clip, and what an annotator gave for each question."""
    questions = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "sentiment")
    header = ",".join(("HITId", "Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{q}" for q in questions)))
    return "\n".join([header, *(",".join(map(str, ("h", *row))) for row in rows)]).encode()


LAYOUTS: dict[str, Layout] = {
    "crema_d": Layout(
        (
            *("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1091_IEO_HAP_HI.wav", "AudioWAV/1002_WSI_BOR_LO.wav"),
            "AudioWAV/1001_XYZ_ANG_XX.wav",
        ),
        {
            "VideoDemographics.csv": b"ActorID,Age,Sex,Race,Ethnicity\n"
            b"1001,51,Male,Caucasian,Not Hispanic\n1091,29,Female,Asian,Not Hispanic\n"
        },
        {
            "1001_DFA_ANG_XX": dict(
                emotion="angry", speaker="1001", split="train", text="Don't forget a jacket.", gender="male"
            )
            | dict(age_years=51.0, language="en", extra=None),
            "1091_IEO_HAP_HI": dict(
                emotion="happy", split="eval", gender="female", extra={"intensity": "high"}
            ),
        },
        ("1 BOR (a label that is not in the table)",),
    ),
    "tess": Layout(
        (
            *("OAF_angry/OAF_back_angry.wav", "OAF_neutral/OA_bite_neutral.wav"),
            *("YAF_pleasant_surprised/YAF_back_ps.wav", "noise.wav"),
        ),
        {},
        {
            "OAF_back_angry": dict(emotion="angry", speaker="OAF", text="Say the word back.", age_years=64.0),
            "OA_bite_neutral": dict(emotion="neutral", speaker="OAF", split="train", gender="female"),
            "YAF_back_ps": dict(emotion="surprise", speaker="YAF", split="eval", age_years=26.0),
        },
        (),
    ),
    "emovo": Layout(
        ("f1/dis-f1-b1.wav", "m3/gio-m3-d1.wav", "m3/m3.wav"),
        {},
        {
            "dis-f1-b1": dict(emotion="disgust", speaker="f1", gender="female", split="train", language="it"),
            "gio-m3-d1": dict(emotion="happy", gender="male", split="eval", text="Sabato sera cosa farà?"),
        },
        (),
    ),
    "subesco": Layout(
        ("F_01_OISHI_S_1_ANGRY_1.wav", "F_02_MONIKA_S_2_SURPRISE_3].wav", "M_10_ABC_S_10_SAD_5.wav", "x.wav"),
        {},
        {
            "F_01_OISHI_S_1_ANGRY_1": dict(
                emotion="angry", speaker="F_01", gender="female", language="bn", extra={"sentence": 1}
            ),
            "F_02_MONIKA_S_2_SURPRISE_3": dict(emotion="surprise", split="train"),
            "M_10_ABC_S_10_SAD_5": dict(emotion="sad", gender="male", split="eval", extra={"sentence": 10}),
        },
        (),
    ),
    "jl_corpus": Layout(
        (
            *("raw/JL(wav+txt)/female1_angry_10a_1.wav", "raw/JL(wav+txt)/male2_excited_1b_2.wav"),
            *("raw/JL(wav+txt)/male1_anxious_2a_1.wav", "raw/JL(wav+txt)/survey.wav"),
        ),
        {"raw/JL(wav+txt)/female1_angry_10a_1.txt": b"Jack views an \x91art\x92\r\n"},
        {
            "female1_angry_10a_1": dict(
                emotion="angry",
                speaker="female1",
                gender="female",
                split="train",
                text="Jack views an \u2018art\u2019",
            ),
            "male2_excited_1b_2": dict(emotion="happy", gender="male", split="eval", text=None),
        },
        ("1 anxious (a secondary emotion, none of the nine)",),
    ),
    "emov_db": Layout(
        (
            *("bea_Amused/amused_1-15_0001.wav", "jenie/Angry/Anger_1-28_0001.wav"),
            *("sam_Disgust/disgust_1-28_0002.wav", "sam_Sleepy/sleepiness_1-28_0002.wav", "sam_Angry/x.wav"),
        ),
        {"cmuarctic.data": b'( arctic_a0001 "Author of the danger trail." )\n( arctic_b0002 "No." )\n'},
        {
            "bea-amused_1-15_0001": dict(
                emotion="happy", speaker="bea", text="Author of the danger trail.", gender="female"
            ),
            "jenie-anger_1-28_0001": dict(emotion="angry", split="eval", text="Author of the danger trail."),
            "sam-disgust_1-28_0002": dict(emotion="disgust", split="train", text=None, gender="male"),
        },
        ("1 sleepy (sleepiness is none of the nine)",),
    ),
    "esd": Layout(
        (
            *("0011/Angry/0011_000351.wav", "0003/Happy/train/0003_000701.wav", "0020/Sad/0020_001051.wav"),
            "0003/Happy/0003_000701.wav",
            *("0001/Neutral/0001_000001.wav", "0001/Neutral/take.wav"),
        ),
        {
            "0011/0011.txt": b"\xef\xbb\xbf0011_000351\tThe nine, the eggs.\tAngry\n",
            "0003/0003.txt": "0003_000701\t打远一看。\t快乐\n0003_000702 打\n".encode("utf-16"),
            "0001/0001.txt": "0001_000001\t他对谁都那么友好。\t中立\n".encode("gb2312"),
            "0020/0020.txt": b"0020_001051\tIt\x92s a caf\xe9.\tSad\n",
        },
        {
            "0011_000351": dict(
                emotion="angry", speaker="0011", gender="male", language="en", text="The nine, the eggs."
            ),
            "0003_000701": dict(emotion="happy", gender="female", language="zh", text="打远一看。"),
            "0020_001051": dict(emotion="sad", split="eval", text="It\u2019s a café."),
            "0001_000001": dict(emotion="neutral", split="train", text="他对谁都那么友好。"),
        },
        ("1 listed twice",),
    ),
    "msp_improv": Layout(
        tuple(
            f"Audio/session{name[-8]}/{name[:4]}/{name[9]}/MSP-IMPROV-{name}.wav"
            for name in ("S01A-F01-P-FM01", "S01H-M06-R-MM02", "S02S-F02-S-FF03", "S09N-F01-P-FM09")
        ),
        {
            "Evalution.txt": b"UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.500000; V:2.0; D:NaN ; N:4.000000;\n"
            b"u14; Neutral; Neutral,; A:3.0; V:2.0; D:3.0; N:4.0;\n\n"
            b"UTD-IMPROV-S01H-M06-R-MM02.avi; H; A:4.0; V:4.0; D:3.0 ; N:4.0;\n"
            b"UTD-IMPROV-S02S-F02-S-FF03.avi; X; A:4.0; V:4.0; D:3.0 ; N:4.0;\n"
            b"UTD-IMPROV-S02S-F02-S-FF04.avi; S; A:4.0; V:4.0; D:3.0 ; N:4.0;\n",
            "Human_transcriptions/MSP-IMPROV-S01A-F01-P-FM01.txt": b"How can I not?\n",
        },
        {
            "S01A-F01-P-FM01": dict(emotion="neutral", speaker="F01", gender="female", split="train")
            | dict(text="How can I not?", extra={"activation": 3.5, "valence": 2.0, "naturalness": 4.0}),
            "S01H-M06-R-MM02": dict(emotion="happy", gender="male", split="eval"),
        },
        ("1 X (the annotators did not agree)", "1 listed without a recording"),
    ),
    "cmu_mosei": Layout(
        (
            *("Videos/Segmented/Combined/_v-1_0.wav", "Audio/_v-1_1.wav", "Audio/b_0.wav", "Audio/b_1.wav"),
            "Audio/c_0.wav",
        ),
        {
            "Labels/5000_batch_raw.csv": answers(
                ("_v-1", 0, 1, 0, 0, 0, 0, 0, -1),
                ("_v-1", 0, 2, 0, 0, 0, 1, 0, -2),
                ("_v-1", 1, 0, 0, 0, 0, 0, 0, 0),
                ("b", 0, 0, 0, 0, 1, 0, 1, 1),
                ("b", 1, 0, 0, 0, 0, 3, 0, -3),
                ("b", 1, "", 0, 0, 0, 0, 0, -3),
                ("b", 2, 0, 0, 0, 0, 3, 0, -3),
            ),
            "Labels/other.csv": b"video,score\n_v-1,1\n",
            "Transcript/Segmented/Combined/_v-1.txt": b"_v-1___0___0.0___1.5___Never  again.\n_v-1___1\n",
        },
        {
            "_v-1_0": dict(emotion="angry", speaker="_v-1", text="Never  again.")
            | dict(
                extra=dict(anger=1.5, disgust=0, fear=0, happiness=0, sadness=0.5, surprise=0, sentiment=-1.5)
            ),
            "_v-1_1": dict(emotion="neutral", text=None),
            "b_1": dict(emotion="sad", speaker="b"),
        },
        ("1 several (emotions with the same intensity)", "1 listed without a clip"),
    ),
}
