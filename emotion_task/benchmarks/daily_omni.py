"""Daily-Omni (Zhou et al. 2025, arXiv 2505.17862): questions about videos, here about their sound alone.

    root/qa.json                                  a list of rows (huggingface.co/datasets/liarliar/Daily-Omni)
    root/Videos/VIDEO/VIDEO_audio.wav             of Videos.tar; without it the sound of VIDEO_video.mp4

The owners' scripts have such a mode (`--input_mode audio`). What only the picture shows cannot be answered.
The prompt is that of the owners' testmodel.py with "audio" in the place of "video".
"""

from __future__ import annotations

import re
from pathlib import Path

from emotion_task.benchmarks.reading.questions import (
    Benchmark,
    Questions,
    Reading,
    find_list,
    listed_rows,
    text_of,
    texts_of,
)

LAYOUT = (
    "Expected is qa.json beside the unpacked Videos/ (Videos/ID/ID_audio.wav or ID_video.mp4), as "
    "huggingface.co/datasets/liarliar/Daily-Omni ships them."
)
PROMPT = (
    "Your task is to accurately answer multiple-choice questions based on the given audio.\n"
    "Select the single most accurate answer from the given choices.\n"
    "Question: {question}\nChoices: {choices}\n"
    "Your answer should be a capital letter representing your choice: A, B, C, or D. Don't generate any "
    "other text."
)
_LETTER = re.compile(r"^\s*[A-Z][.):]\s*")


def load_daily_omni(path: Path, split: str) -> Questions:
    """Lists the questions of a folder, or of the list in it; a question's id is its video and place.

    Raises:
        DataError: no list, a row without question, choices, answer or video, or no recording.
    """
    file = find_list(path, ("qa.json",), LAYOUT)
    reading = Reading("Daily-Omni", file, LAYOUT)
    for index, (where, row) in enumerate(listed_rows(file)):
        video = text_of(row, "video_id", where)
        folder = file.parent / "Videos" / video
        sound = folder / f"{video}_audio.wav"
        reading.add(
            f"{video}-{index}",
            sound if sound.is_file() else folder / f"{video}_video.mp4",
            text=text_of(row, "Question", where),
            choices=[_LETTER.sub("", choice) for choice in texts_of(row, "Choice", where)],
            answer=text_of(row, "Answer", where),
            groups={
                "type": row.get("Type"),
                "duration": row.get("video_duration"),
                "category": row.get("video_category") or row.get("content_parent_category"),
            },
        )
    return reading.done()


BENCHMARK = Benchmark(load=load_daily_omni, prompt=PROMPT)
