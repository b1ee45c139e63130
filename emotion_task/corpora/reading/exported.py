"""The form of data sets that `emotion export` writes: names of splits, and columns that are no plain fields.

FOLDER/data/train-00000-of-00002.parquet ...
"""

from __future__ import annotations

import re
from pathlib import Path

SPLITS = {"train": "train", "eval": "test"}
"""Exported split by our split. Utterances of any other split, such as a corpus' development part, are
`other`."""
DERIVED = ("age_level",)
"""Exported columns that follow from others."""
JSON_TEXTS = ("measured", "extra")
"""Exported columns of objects as JSON."""
_SHARD = re.compile(r"(train|test|other)-\d{5}-of-\d{5}\.parquet")


def is_shard(path: Path) -> bool:
    """Tells whether a file has the name of a shard."""
    return _SHARD.fullmatch(path.name) is not None
