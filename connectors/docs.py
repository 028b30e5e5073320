"""docs/connectors.md, from the connectors themselves: what each can do, what that was tried against, its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from connectors import CONNECTORS, load
from connectors.base import Connector
from connectors.config import docs_rows
from core.ports import PROTOCOLS, capabilities

HEAD = """# Connectors

Written by `./run docs` from the connectors themselves; changes made here are overwritten.

What a connector can do is told by the methods it has. Nobody who built these could reach a vendor from where they
worked: the column "tried against" says what each was tried with instead.
"""


def connectors_page(kinds: Iterable[str] = ()) -> str:
    """The whole page, of these kinds or of every kind of ours."""
    classes = [load(kind) for kind in sorted(kinds or CONNECTORS)]
    parts = [HEAD, _capabilities_table(classes), *(_section(found) for found in classes)]
    return "\n".join(parts)


def _capabilities_table(classes: Sequence[type[Connector[Any]]]) -> str:
    offered = [name for name in PROTOCOLS if any(name in capabilities(found) for found in classes)]
    rows = [
        [
            f"[{found.title}](#{found.kind})",
            *("yes" if name in capabilities(found) else "" for name in offered),
            found.proved_against,
        ]
        for found in classes
    ]
    return _table(["Connector", *offered, "Tried against"], rows)


def _section(found: type[Connector[Any]]) -> str:
    rows = [[f"`{name}`", values, default, text] for name, values, default, text in docs_rows(found.config_class)]
    settings = _table(["Setting", "Value", "Default", "Meaning"], rows)
    return f'## <a id="{found.kind}"></a>{found.title}: `kind = "{found.kind}"`\n\n<{found.docs_url}>\n\n{settings}'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
