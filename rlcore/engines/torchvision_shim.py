"""Lets the torchvision that package indexes serve (a CUDA build) be imported beside a CPU build of torch.

Its compiled library then does not load, so two operators that its Python half describes are unknown and the
import fails. Declaring them is enough: nothing here calls them, processors of Qwen2.5-Omni only import it.

vLLM inspects architectures in a child process that loads no plug-ins, so every Python process must carry the
hook: `python -m rlcore.engines.torchvision_shim` writes a `.pth` file into this environment's site-packages
that calls `install`. Not needed with a CPU build of torchvision, and harmless beside one.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

PTH = "rlcore_torchvision.pth"
_LINE = (
    "import importlib.util as u; u.find_spec('rlcore') and "
    "__import__('rlcore.engines.torchvision_shim', fromlist=['install']).install()\n"
)
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareOperators(MetaPathFinder):
    """Declares operators when torchvision is about to describe them, by which time torchvision has tried to
    load them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Finds no module, but declares the operators when the one that describes them is imported."""
        if name == "torchvision._meta_registrations":
            sys.meta_path.remove(self)
            if not sys.modules["torchvision.extension"]._has_ops():
                _declare()


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declare.library = library  # type: ignore[attr-defined]  # operators live as long as their library


def install() -> None:
    """Watches for torchvision's import, and costs nothing until then. Idempotent."""
    if not any(isinstance(finder, _DeclareOperators) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeclareOperators())


def write_pth() -> Path:
    """Makes every process of this environment call `install` when it starts; returns the file written."""
    path = Path(sysconfig.get_path("purelib")) / PTH
    path.write_text(_LINE)
    return path


if __name__ == "__main__":
    print(f"wrote {write_pth()}")
