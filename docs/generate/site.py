"""What mkdocs asks of us as it makes the site: links that leave docs/ name a file of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Returns a page whose links to files beside docs/ lead to them in the repository (`repo_url`), or, where
    that is not set, are the files' paths. A test says of all links that they lead somewhere."""
    folder = (PROJECT / "docs" / page.file.src_uri).parent

    def replaced(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if target.is_relative_to(PROJECT / "docs") or not target.is_relative_to(PROJECT):
            return found[0]
        path = target.relative_to(PROJECT).as_posix()
        if config.repo_url:
            return f"[{found[1]}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return f"`{path}`" if path in found[1] else f"{found[1]} (`{path}`)"

    return LINK.sub(replaced, markdown)
