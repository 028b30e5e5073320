"""The settings of a CSV file: where it is, and what its columns are called."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from pydantic import field_validator

from connectors.config import ConnectorConfig, setting

TAB = "tab"
_ASCII = bytes(range(128))


class CsvConfig(ConnectorConfig):
    """What is not given is found out from the file itself."""

    path: Path = setting(title="File", help="One customer per row, names of columns first.", example="customers.csv")
    delimiter: str = setting("", title="Delimiter", help="Such as `,` `;` or `tab`; empty: found out.", example=";")
    encoding: str = setting(
        "",
        title="Encoding",
        help="Such as `utf-8` or `cp1252`; empty: UTF-8, and cp1252 for rows that are not.",
        example="cp1252",
    )
    fields: dict[str, str] = setting(
        dict,
        title="Columns",
        help="Our name = the column's. What is missing is guessed from usual English and French names; an empty name"
        " switches a guess off. Any other name of ours makes the column an attribute for audiences.",
        example='{ email = "Courriel", customer_since = "Client depuis", plan = "Offre" }',
    )

    @field_validator("delimiter", mode="before")
    @classmethod
    def _tab_has_a_name(cls, delimiter: Any) -> Any:
        return TAB if delimiter in ("\t", "\\t") else delimiter

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, delimiter: str) -> str:
        usable = len(delimiter) == 1 and delimiter.isascii() and delimiter.isprintable() and not delimiter.isalnum()
        if delimiter in ("", TAB) or (usable and delimiter not in '"._-@ '):
            return delimiter
        raise ValueError("must be one sign such as , or ; or the word tab")

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        if not encoding:
            return ""
        try:
            name = codecs.lookup(encoding).name
            like_ascii = _ASCII.decode(name) == _ASCII.decode("ascii")
            several_bytes = len("あ".encode(name, "replace")) > 1  # a delimiter might be half of a character
        except (LookupError, UnicodeError, AttributeError, TypeError, ValueError):
            raise ValueError("is no encoding of text known here; use utf-8 or cp1252") from None
        if not like_ascii or (several_bytes and name not in ("utf-8", "utf-8-sig")):
            raise ValueError("is not supported: save the file as UTF-8")
        return "utf-8" if name == "utf-8-sig" else name

    @field_validator("fields")
    @classmethod
    def _named(cls, fields: dict[str, str]) -> dict[str, str]:
        if any(not ours for ours in fields):
            raise ValueError("a field of ours needs a name")
        return fields

    @property
    def separator(self) -> str:
        """The sign itself; empty if it is to be found out."""
        return "\t" if self.delimiter == TAB else self.delimiter
