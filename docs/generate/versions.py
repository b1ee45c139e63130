"""The page of versions: which are allowed, and which were tested together.

What is allowed is read from setup.cfg, what was tested from the locks, and what ran with each from
tested.json, which is written by hand when it has run.
"""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

from generate.table import table

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "vllm", "transformers", "ray", "deepspeed", "peft", "tokenizers", "numpy", "triton")
"""Of the table: those whose versions decide whether rlcore works, and which others go with them."""


def allowed() -> dict[str, str]:
    """Returns the bounds of setup.cfg by package: of every install, and of the extra `gpu`."""
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"] + config["options.extras_require"]["gpu"]
    split = (re.match(r"([\w.-]+)(?:\[\w+\])?(.*)", line.strip()) for line in lines.splitlines())
    return {found[1].lower(): found[2] for found in split if found}


def locked(lock: str) -> dict[str, str]:
    """Returns package to version; vLLM's build for CPUs is called vllm."""
    lines = (PROJECT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().removesuffix("-cpu"): version for name, version in pins}


def page() -> str:
    """Returns the page."""
    tested = json.loads((PROJECT / "requirements" / "tested.json").read_text(encoding="utf-8"))
    bounds, locks = allowed(), [locked(one["lock"]) for one in tested["sets"]]
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg", encoding="utf-8")
    heads = [f"tested: {one['lock']}" for one in tested["sets"]]
    rows = [
        [name, bounds.get(name, "as vLLM asks"), *(lock.get(name, "not installed") for lock in locks)]
        for name in PACKAGES
    ]
    ran = [[one["lock"], one["for"], one["ran"]] for one in tested["sets"]]
    others = [[one["versions"], one["ran"], one["result"]] for one in tested["others"]]
    return "\n".join(
        [
            "# Versions that work together",
            "",
            "Written by `make pages` from setup.cfg, the locks and requirements/tested.json; do not edit.",
            "",
            f"Python {config['options']['python_requires']}, the locks for 3.11; Linux on x86-64.",
            "",
            *table(["", "allowed", *heads], rows),
            *table(["lock", "for", "what ran with it"], ran),
            "## Newer ones",
            "",
            *table(["versions", "what ran", "result"], others),
        ]
    )
