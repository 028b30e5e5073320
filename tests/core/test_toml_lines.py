"""Where a key of a TOML file stands, however it is written."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.toml_lines import Path, line_index, line_of

FILE = '''# a comment = "with a key"
title = "x"

[workspace]
name = "a ] = b # no comment"     # = comment
long = """
first = 1
second = 2"""
literal = \'C:\\path "\'
a.b.c = 1979-05-27 07:32:00
retention = { inbox = 30, "payloads" = { deep = [1, {x = 1}] } }
list = [
  "one", # [x]
  # nothing = here
  "two",
]

[[quiet_periods]]
name = "one"

[[quiet_periods]]
name = "two"
[quiet_periods.inner]
key = true

[campaigns."relation ship"]
daily_limit = 0
  indented = 1
'''


def test_every_form_of_a_key_is_found_on_its_line() -> None:
    lines = line_index(FILE)
    expected: dict[Path, int] = {
        ("title",): 2,
        ("workspace",): 4,
        ("workspace", "name"): 5,
        ("workspace", "long"): 6,
        ("workspace", "literal"): 9,
        ("workspace", "a", "b", "c"): 10,
        ("workspace", "retention", "inbox"): 11,
        ("workspace", "retention", "payloads", "deep", 1, "x"): 11,
        ("workspace", "list"): 12,
        ("workspace", "list", 0): 13,
        ("workspace", "list", 1): 15,
        ("quiet_periods", 0, "name"): 19,
        ("quiet_periods", 1): 21,
        ("quiet_periods", 1, "name"): 22,
        ("quiet_periods", 1, "inner", "key"): 24,
        ("campaigns", "relation ship", "daily_limit"): 27,
        ("campaigns", "relation ship", "indented"): 28,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("first",) not in lines
    assert ("workspace", "first") not in lines


def test_a_missing_key_is_shown_at_its_table() -> None:
    lines = line_index(FILE)
    assert line_of(lines, ("campaigns", "relation ship", "sender")) == 26
    assert line_of(lines, ("nowhere", "at", "all")) == 1


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """Every path within a parsed document."""
    found: set[Path] = {path} if path else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found |= paths_of(inner, (*path, key))
    return found


KEYS = st.text("ab é.\"'#=[]{}", min_size=1, max_size=5)
VALUES = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), st.text("ab\"'#=[]{},\\\n", max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ",\n ".join(written(inner) for inner in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value).lower()


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_whatever_tomllib_reads_has_a_line(document: dict[str, dict[str, Any]]) -> None:
    text = "\n".join(
        f"[{written(table)}]\n" + "".join(f"{written(key)} = {written(value)}\n" for key, value in values.items())
        for table, values in document.items()
    )
    assert tomllib.loads(text) == document
    lines = line_index(text)
    assert paths_of(document) == set(lines)
    rows = text.splitlines()
    for path, line in lines.items():
        if len(path) == 2:
            assert rows[line - 1].startswith(written(path[1]))


@given(st.text("ab\"'#=[]{},.\\\n ", max_size=60))
def test_any_text_is_passed_over_without_end(text: str) -> None:
    line_index(text)


def test_table_that_only_its_parts_name_stands_where_the_first_of_them_does() -> None:
    lines = line_index("[a.b.c]\nx = 1\n[a.b]\ny = 2\n")
    assert (lines[("a",)], lines[("a", "b")], lines[("a", "b", "c")]) == (1, 3, 1)
