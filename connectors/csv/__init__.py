"""Customers in a CSV file: reads them, and writes the nps_* columns back. https://www.rfc-editor.org/rfc/rfc4180

Capabilities: ContactSource, ContactSink, FieldAdmin. Parts: `dialect` (how a file is written, its records), `mapping`
(which column is which), `reading`, `writing`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from connectors.base import Connector
from connectors.csv.config import CsvConfig
from connectors.csv.reading import Reading
from core.errors import Misconfigured, Unavailable
from core.ports import Account, Bookmark, ContactRecord, Page

__all__ = ["Csv", "CsvConfig"]


class Csv(Connector[CsvConfig]):
    """One file of customers."""

    kind = "csv"
    title = "CSV file"
    docs_url = "https://www.rfc-editor.org/rfc/rfc4180"
    proved_against = "real files, processes killed while writing, random dialects"
    config_class = CsvConfig

    def check(self) -> Account:
        """Read the header. Raises Misconfigured, Unavailable."""
        with self._open() as file:
            reading = Reading(file, self.config)
        columns = reading.columns
        known_by = columns.names[columns.id_column]
        note = f'{reading.layout.describe()}; a customer is known by "{known_by}"'
        return Account(f"csv:{os.path.realpath(self.config.path)}", str(self.config.path), note)

    def reaches_outside(self) -> bool:
        return False

    def read_contacts(self, start: Bookmark) -> Iterator[Page[ContactRecord]]:
        """See `connectors.csv.reading`. Raises Misconfigured, Unavailable."""
        with self._open() as file:
            yield from Reading(file, self.config).pages(start)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        path = self.config.path
        try:
            if path.is_dir():
                raise Misconfigured(f"{path} is a folder: name the file in it", field="path", kind=self.kind)
            with path.open("rb") as file:
                yield file
        except FileNotFoundError:
            raise Unavailable(f"there is no file {path}: put it back or correct its path", kind=self.kind) from None
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Unavailable(f"{path} cannot be read: {why}", kind=self.kind) from None
