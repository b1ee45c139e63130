"""Writes the pages of docs/reference that follow from sources.

    make pages        # or, in docs: python -m generate

Tests compare the pages with what is written here.
"""

from __future__ import annotations

from pathlib import Path

from generate import commands, families, keys, licences, versions

PAGES = {
    "commands.md": commands.page,
    "compatibility.md": versions.page,
    "families.md": families.page,
    "keys.md": keys.page,
    "licences.md": licences.page,
}
"""What writes each page."""

if __name__ == "__main__":
    for name, page in PAGES.items():
        path = Path(__file__).resolve().parent.parent / "reference" / name
        path.write_text(page(), encoding="utf-8")
        print(path)
