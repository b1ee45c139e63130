"""Measures how well claims about the voice are found in free text, by style and claim type, and at what cost.

The passages (`tests/data/claims_free.jsonl`) are terse lists, fluent prose of a language model, and talk. Of
the splits, `free_held_out` was set aside before the finder was changed, `free_fresh`, `free_last`,
`free_third` and `free_fourth` were written afterwards. docs/explanation/faithfulness.md says how each was
read first, before it corrected a rule.

    python -m benchmarks.claims [--quick] [--json FILE] [--gate]

Goals on prose of `free_last`: precision and recall of 0.95, wrong sign in at most 1 % of the claims found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row, finish, parse_arguments
from emotion_task.claims.finder import read_claims
from emotion_task.claims.labelled import Found, Passage, read_labelled, score_finder

FILE = Path(__file__).parent.parent / "tests" / "data" / "claims_free.jsonl"
LAST = "free_last"
STYLES = ("terse", "prose", "colloquial")


def main() -> None:
    """Prints precision, recall and wrong sign by split, style and claim type."""
    arguments = parse_arguments(__doc__)
    passages = read_labelled(FILE)
    cost = _microseconds_per_word(passages)
    rows: list[Row] = []
    for split in (LAST,) if arguments.quick else dict.fromkeys(row["split"] for row in passages):
        of_split = [row for row in passages if row["split"] == split]
        for style in (*STYLES, "all"):
            of_style = [row for row in of_split if style in (row.get("style"), "all")]
            for name, found in score_finder(of_style).items():
                if found.num_labelled or found.num_found:
                    rows.append(_row(split, style, name, found))
    last = {row["style"]: row for row in rows if row["split"] == LAST and row["type"] == "all"}
    prose = last["prose"]
    headline = {
        "precision": prose["precision"],
        "recall": prose["recall"],
        "wrong_sign": prose["wrong_sign"],
        "us_per_word": cost,
    }
    goals = {
        "precision 0.95": float(prose["precision"]) >= 0.95,
        "recall 0.95": float(prose["recall"]) >= 0.95,
        "wrong sign 1 %": float(prose["wrong_sign"]) <= 0.01,
    }
    finish("claims", rows, headline, goals, arguments)


def _row(split: str, style: str, name: str, found: Found) -> Row:
    return {
        "split": split,
        "style": style,
        "type": name,
        "claims": found.num_labelled,
        "precision": found.precision,
        "recall": found.recall,
        "wrong_sign": found.wrong_sign,
    }


def _microseconds_per_word(passages: Sequence[Passage]) -> float:
    """Returns the process time of a first reading: what was read before is remembered."""
    start = time.process_time()
    for row in passages:
        read_claims(row["text"])
    return 1e6 * (time.process_time() - start) / sum(len(row["text"].split()) for row in passages)


if __name__ == "__main__":
    main()
