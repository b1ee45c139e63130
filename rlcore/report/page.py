"""The page as one file: styles, scripts and data in one HTML document that asks for nothing else.

Data of a run comes from models and from strangers' recordings, so it never becomes markup: it stands in
elements of type `application/json` and `text/plain`, and the scripts make text nodes of it. A content
security policy lets the browser run the scripts of this package alone, by their digests.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcore.records.files import JsonObject, write_text
from rlcore.report.run_data import Run

STATIC = Path(__file__).parent / "static"
STYLES = ("uplot/uPlot.min.css", "page.css")
SCRIPTS = (
    "uplot/uPlot.iife.min.js",
    "base.js",
    "data.js",
    "overview.js",
    "figures.js",
    "curves.js",
    "sample_list.js",
    "sample.js",
    "samples.js",
    "timeline.js",
    "system.js",
    "page.js",
)
SOUND_TYPES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm")
"""Files that a page may play. A sample that names any other file gets no player."""
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src 'self' data: blob: file:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def write_page(path: Path, runs: Sequence[Run], *, num_sounds: int = 0) -> None:
    """Writes the page of one or more runs.

    Args:
        num_sounds: this many recordings become part of the page, those of held-out prompts first. The others
            are played from where they lie, as long as the page is opened on a machine that has them.
    """
    blobs: dict[str, object] = {}
    heads = []
    for number, run in enumerate(runs):
        heads.append(run.head())
        table = run.table(with_details=True)
        blobs |= {
            f"{number}/metrics": run.metrics(),
            f"{number}/timeline": run.timeline(),
            f"{number}/samples": table.columns,
            f"{number}/recordings": table.recordings,
        }
        if num_sounds:
            blobs[f"{number}/sounds"] = _sounds(table.columns, num_sounds)
    write_text(path, document(_title(heads), runs, head(runs, heads), blobs))


def head(runs: Sequence[Run], heads: Sequence[JsonObject]) -> JsonObject:
    """Returns what the page shows first: the runs' heads, and for two runs the gain between them."""
    from rlcore.report.estimates import gain

    found: JsonObject = {"runs": heads, "live": False, "gain": None}
    metrics = {(each.get("headline") or {}).get("metric") for each in heads}
    if len(runs) == 2 and len(metrics) == 1:
        found["gain"] = gain(runs[0].values, runs[1].values)
    return found


def document(
    title: str, runs: Sequence[Run], head: Mapping[str, Any], blobs: Mapping[str, object] | None = None
) -> str:
    """Returns the whole HTML. Without `blobs` the page asks its server for them."""
    own = [path for run in runs if run.panels is not None for path in run.panels.scripts]
    files = [*(STATIC / name for name in SCRIPTS[:-1]), *dict.fromkeys(own), STATIC / SCRIPTS[-1]]
    scripts = [path.read_text(encoding="utf-8") for path in files if path.suffix == ".js"]
    styles = [STATIC / name for name in STYLES] + [path for path in files if path.suffix == ".css"]
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(scripts=digests)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        *(f"<style>{path.read_text(encoding='utf-8')}</style>" for path in styles),
        "</head><body>",
        (STATIC / "page.html").read_text(encoding="utf-8"),
        f'<script type="application/json" id="head">{in_script(head)}</script>',
        *(
            f'<script type="text/plain" id="{name}">{packed(blob)}</script>'
            for name, blob in (blobs or {}).items()
        ),
        *(f"<script>{script}</script>" for script in scripts),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def in_script(value: object) -> str:
    """Returns JSON that no text in it can end the element of: `<`, `>` and `&` are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def packed(value: object) -> str:
    """Returns JSON as base64 of gzip, whose letters mean nothing in HTML."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)).decode()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _title(heads: Iterable[JsonObject]) -> str:
    return " and ".join(each["name"] for each in heads)


def _sounds(columns: JsonObject, count: int) -> dict[str, str]:
    """Returns recordings as data URLs by their path, those of held-out prompts first."""
    held_out = {
        prompt for prompt, split in zip(columns["prompt"], columns["split"], strict=True) if split == "eval"
    }
    order = sorted(range(len(columns["prompts"])), key=lambda number: (number not in held_out, number))
    paths = dict.fromkeys(
        path for number in order for path in sound_paths(columns["prompts"][number]["media"])
    )
    found: dict[str, str] = {}
    for path in paths:
        if len(found) == count:
            break
        if Path(path).is_file():
            kind = mimetypes.guess_type(path)[0] or "audio/wav"
            found[path] = f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
    return found


def sound_paths(media: Mapping[str, Any]) -> list[str]:
    """Returns the paths of the recordings among a sample's media."""
    found = media.get("audio") if isinstance(media, Mapping) else None
    listed = found if isinstance(found, list) else [found]
    return [path for path in listed if isinstance(path, str) and path.lower().endswith(SOUND_TYPES)]
