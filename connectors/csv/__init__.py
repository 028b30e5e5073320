"""Customers in a CSV file: reads them, and writes the nps_* columns back. https://www.rfc-editor.org/rfc/rfc4180

Capabilities: ContactSource, ContactSink, FieldAdmin. Parts: `dialect` (how a file is written, its records), `mapping`
(which column is which), `reading`, `writing`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from connectors.base import Connector
from connectors.csv.config import CsvConfig
from connectors.csv.mapping import NPS_FIELDS, field_states
from connectors.csv.reading import Reading
from connectors.csv.replacing import KeepsChanging, replace
from connectors.csv.writing import WRITABLE, Rewrite
from core.errors import Misconfigured, Unavailable, Unsupported
from core.ports import Account, Bookmark, ContactRecord, FieldState, Page, ScoreUpdate, WriteResult

__all__ = ["Csv", "CsvConfig"]


class Csv(Connector[CsvConfig]):
    """One file of customers."""

    kind = "csv"
    title = "CSV file"
    docs_url = "https://www.rfc-editor.org/rfc/rfc4180"
    proved_against = "real files, processes killed while writing, random dialects"
    config_class = CsvConfig
    #: Each call rewrites the file once, so the more at once, the better.
    write_batch_size = 10_000

    def check(self) -> Account:
        """Read the header. Raises Misconfigured, Unavailable."""
        with self._open() as file:
            reading = Reading(file, self.config)
        columns = reading.columns
        known_by = columns.names[columns.id_column]
        note = f'{reading.layout.describe()}; a customer is known by "{known_by}"'
        real = Path(os.path.realpath(self.config.path))
        if not (os.access(real, os.W_OK) and os.access(real.parent, os.W_OK | os.X_OK)):
            note += "; scores cannot be written back, because the file or its folder may not be written to"
        return Account(f"csv:{real}", str(self.config.path), note)

    def reaches_outside(self) -> bool:
        return False

    def read_contacts(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        """See `connectors.csv.reading`. Raises Misconfigured, Unavailable."""
        with self._open() as file:
            yield from Reading(file, self.config).pages(start)

    def write_scores(self, updates: Sequence[ScoreUpdate]) -> Iterator[WriteResult]:
        """See `connectors.csv.writing`. All are on the disk before the first is reported.

        Raises Unavailable, Misconfigured: then nothing was written.
        """
        by_id: dict[str, list[ScoreUpdate]] = {}
        impossible = {update.key: unknown for update in updates if (unknown := update.fields.keys() - set(WRITABLE))}
        for update in updates:
            if update.key not in impossible:
                by_id.setdefault(update.external_id, []).append(update)
        rewrite = Rewrite(self.config, by_id)
        try:
            self._rewrite(rewrite)
        except KeepsChanging as error:
            yield from (WriteResult.retry(update.key, str(error)) for update in updates)
            return
        for update in updates:
            line = rewrite.found.get(update.external_id)
            if update.key in impossible:
                named = ", ".join(sorted(impossible[update.key]))
                yield WriteResult.rejected(update.key, f"a CSV file cannot be given {named}")
            elif line is None:
                yield WriteResult.rejected(update.key, self._gone(update.external_id))
            else:
                yield WriteResult.done(update.key, f"line {line}")

    def read_fields(self) -> Sequence[FieldState]:
        """Every column, mapped or not, then the NPS fields that are missing."""
        with self._open() as file:
            return field_states(Reading(file, self.config).columns)

    def create_fields(self, names: Sequence[str]) -> Sequence[FieldState]:
        """Add empty columns for these NPS fields, at the end. Raises Unsupported for any other name."""
        wanted = {state.name: state.mapped_to for state in self.read_fields() if not state.exists}
        fields = {wanted.get(name, name) for name in names}
        if unknown := sorted(fields - set(NPS_FIELDS)):
            raise Unsupported(f"only NPS fields are added to a CSV file, not {', '.join(unknown)}", kind=self.kind)
        self._rewrite(Rewrite(self.config, {}, add=fields))
        return [state for state in self.read_fields() if state.mapped_to in fields]

    def _rewrite(self, rewrite: Rewrite) -> None:
        with self._problems():
            replace(self.config.path, rewrite.copy)

    def _gone(self, external_id: str) -> str:
        known_as = external_id if len(external_id) <= 60 else external_id[:59] + "…"
        return f'{self.config.path.name} has no readable row with the id "{known_as}" any more'

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with self._problems(), self.config.path.open("rb") as file:
            yield file

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        path = self.config.path
        try:
            yield
        except FileNotFoundError:
            raise Unavailable(f"there is no file {path}: put it back or correct its path", kind=self.kind) from None
        except IsADirectoryError:
            raise Misconfigured(f"{path} is a folder: name the file in it", field="path", kind=self.kind) from None
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Unavailable(f"{path} cannot be read: {why}", kind=self.kind) from None
