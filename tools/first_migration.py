"""Writes core/storage/migrations/versions/0001_first_release.py anew from core/storage/schema.py.

    .venv/bin/python tools/first_migration.py

For the time before the first release alone: once 0001 is released it is never edited, a change of the schema is a new
file beside it, and this script goes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqlalchemy import Index, Table, TextClause, UniqueConstraint  # noqa: E402

from core.storage import schema  # noqa: E402

TARGET = ROOT / "core" / "storage" / "migrations" / "versions" / "0001_first_release.py"
HEAD = '''"""The first release: every table.

Names of keys and constraints follow the naming convention of `core.storage.schema.metadata`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite gives a self-counting rowid only to INTEGER PRIMARY KEY; PostgreSQL needs 64 bits.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MS = sa.BigInteger()  # milliseconds since the epoch


def upgrade() -> None:
'''


def sections() -> Iterator[tuple[str, list[Table]]]:
    """The tables as schema.py groups them."""
    source = (ROOT / "core" / "storage" / "schema.py").read_text(encoding="utf-8")
    parts = re.split(r"^# --- (.+?) -+$", source, flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        names = re.findall(r"^\w+ = Table\([^\n]*\n\s+\"(\w+)\"", body, flags=re.M)
        yield title, [schema.metadata.tables[name] for name in names]


def written() -> str:
    lines = [HEAD.rstrip("\n")]
    groups = list(sections())
    seen = {table.name for _, tables in groups for table in tables}
    if seen != set(schema.metadata.tables):
        raise SystemExit(f"not found in schema.py: {', '.join(sorted(set(schema.metadata.tables) - seen))}")
    for title, _ in groups:
        lines.append(f"    {_function(title)}()")
    for title, tables in groups:
        lines += ["", "", f"def {_function(title)}() -> None:", f'    """{title[:1].upper()}{title[1:]}."""']
        for table in tables:
            lines += _table(table)
    return "\n".join(lines) + "\n"


def _function(title: str) -> str:
    return "_" + re.sub(r"\W+", "_", title).strip("_")


def _table(table: Table) -> list[str]:
    lines = ["    op.create_table(", f'        "{table.name}",']
    lines += [f"        {_column(column)}," for column in table.columns]
    for constraint in sorted(_several(table), key=lambda one: str(one.name)):
        names = ", ".join(f'"{column.name}"' for column in constraint.columns)
        lines.append(f'        sa.UniqueConstraint({names}, name="{constraint.name}"),')
    if table.dialect_options["sqlite"]["with_rowid"] is False:
        lines.append("        sqlite_with_rowid=False,")
    lines.append("    )")
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        lines.append(f"    {_index(table, index)}")
    return lines


def _several(table: Table) -> list[UniqueConstraint]:
    found = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    return [one for one in found if len(one.columns) > 1]


def _column(column: Any) -> str:
    parts = [f'"{column.name}"', _type(column.type)]
    for key in column.foreign_keys:
        on_delete = f', ondelete="{key.ondelete}"' if key.ondelete else ""
        parts.append(f'sa.ForeignKey("{key.target_fullname}"{on_delete})')
    if column.primary_key:
        parts.append("primary_key=True")
        if column.autoincrement is False:
            parts.append("autoincrement=False")
    elif not column.nullable:
        parts.append("nullable=False")
    if column.unique:
        parts.append("unique=True")
    if column.server_default is not None:
        default = column.server_default.arg
        shown = f'sa.text("{default.text}")' if isinstance(default, TextClause) else f'"{default}"'
        parts.append(f"server_default={shown}")
    return f"sa.Column({', '.join(parts)})"


def _type(kind: Any) -> str:
    name = type(kind).__name__
    if name == "BigInteger":
        return "ID" if kind._variant_mapping else "MS"
    return f"sa.{name}()"


def _index(table: Table, index: Index) -> str:
    names = ", ".join(f'"{column.name}"' for column in index.columns)
    options = ", unique=True" if index.unique else ""
    where = index.dialect_options["sqlite"]["where"]
    if where is not None:
        options += f', sqlite_where=sa.text("{where.text}"), postgresql_where=sa.text("{where.text}")'
    return f'op.create_index("{index.name}", "{table.name}", [{names}]{options})'


if __name__ == "__main__":
    TARGET.write_text(written(), encoding="utf-8")
