"""Rewrites the pages of docs/ that are made from the code: `./run docs`. A test fails when one is stale."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from connectors.docs import connectors_page

ROOT = Path(__file__).resolve().parent.parent
PAGES: Mapping[str, Callable[[], str]] = {"docs/connectors.md": connectors_page}


def write_pages(root: Path = ROOT) -> list[str]:
    """Write what is stale; returns the names of the pages that were."""
    stale = []
    for name, page in PAGES.items():
        path, text = root / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            stale.append(name)
    return stale


if __name__ == "__main__":
    written = write_pages()
    sys.stdout.write(f"wrote {', '.join(written)}\n" if written else "every page is up to date\n")
