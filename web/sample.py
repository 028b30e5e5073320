"""Writes the sample workspace into a folder, its dates counted from today, so that it makes sense on any day."""

from __future__ import annotations

import os
import re
from datetime import date, timedelta
from pathlib import Path

from web.settings import ROOT

SAMPLE = ROOT / "sample"
FILES = ("customers.csv", "workspace.toml")  # the workspace last: where it stands, the sample is whole
_DAY = re.compile(r"\btoday([+-]\d+)\b")


def make_sample(folder: Path, today: date) -> list[Path]:
    """Write what is missing; returns what was written. Nothing that is there already is touched."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = []
    for name in FILES:
        text = (SAMPLE / name).read_text(encoding="utf-8")
        if _write_new(folder / name, with_dates(text, today)):
            written.append(folder / name)
    return written


def with_dates(text: str, today: date) -> str:
    """`today-45` becomes the date of 45 days ago."""
    return _DAY.sub(lambda found: (today + timedelta(days=int(found[1]))).isoformat(), text)


def _write_new(path: Path, text: str) -> bool:
    """Write a file whole, unless there is one. Killed half-way, the next start finds nothing and writes again."""
    if path.exists():
        return False
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8", newline="")
    try:
        os.link(part, path)  # unlike a rename, never replaces what somebody has put there meanwhile
    except FileExistsError:
        return False
    except OSError:
        part.rename(path)  # a file system without links
        return True
    finally:
        part.unlink(missing_ok=True)
    return True
