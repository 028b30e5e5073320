"""CSV files in the conformance suites: a real file, semicolons and French names of columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from connectors import build
from connectors.base import Connector
from connectors.csv.reading import PAGE
from core.ports import Contact
from tests.conformance.survey_sender import NotApplicable

COLUMNS = {
    "external_id": "Identifiant",
    "email": "Adresse e-mail",
    "first_name": "Prénom",
    "last_name": "Nom",
    "company": "Société",
    "language": "Langue",
    "country": "Pays",
    "time_zone": "Fuseau horaire",
    "phone": "Téléphone",
    "owner": "Responsable",
    "customer_since": "Client depuis",
    "opted_out": "Désinscrit",
    "plan": "Offre",
}
OWN_DATE = "Dernière enquête"
NOTES = "Remarques"


class CsvHarness:
    """See `SourceHarness`, `SinkHarness` and `FieldHarness` in `tests.conformance`."""

    secret = ""
    several_pages = 2 * PAGE + 1000

    def __init__(self, folder: Path, *extra: str) -> None:
        self.path = folder / "clients.csv"
        self.columns = [*COLUMNS.values(), *extra, NOTES]
        self.rows: dict[str, dict[str, str]] = {}
        self.connector = self.restart()
        self._save()

    def restart(self) -> Connector[Any]:
        return build("csv", {"path": str(self.path), "fields": {"plan": "Offre"}})

    # --- as a source ----------------------------------------------------------------------------------------------

    def put(self, contacts: Sequence[Contact]) -> None:
        self.rows |= {contact.external_id: row_of(contact) for contact in contacts}
        self._save()

    def remove(self, external_id: str) -> None:
        del self.rows[external_id]
        self._save()

    def put_at_one_moment(self, contacts: Sequence[Contact]) -> None:
        raise NotApplicable("rows of a file have no time of their own")

    def put_bad(self, contacts: Sequence[Contact]) -> str:
        self.put(contacts)
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines.insert(1, "99;too;few\r\n")
        self.path.write_text("".join(lines), encoding="utf-8", newline="")
        return "line 2"

    def with_wrong_secret(self) -> Connector[Any]:
        raise NotApplicable("a file asks nobody who they are")

    def take_away(self) -> None:
        self.path.unlink()

    # --- as a sink ------------------------------------------------------------------------------------------------

    def shown(self, external_id: str) -> Mapping[str, str]:
        (row,) = [row for row in self._read() if row["Identifiant"] == external_id]
        return {name: text for name, text in row.items() if name.startswith("nps_") and text}

    def rest(self) -> object:
        return [{name: text for name, text in row.items() if not name.startswith("nps_")} for row in self._read()]

    def edit(self, external_id: str, field: str, text: str) -> None:
        rows = self._read()
        for row in rows:
            if row["Identifiant"] == external_id:
                row[field] = text
        write_rows(self.path, list(rows[0]), rows)

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter=";"))

    def _save(self) -> None:
        write_rows(self.path, self.columns, self.rows.values())


def row_of(contact: Contact) -> dict[str, str]:
    """A contact as a French company writes it."""
    row = {theirs: getattr(contact, ours, None) or "" for ours, theirs in COLUMNS.items()}
    row["Offre"] = contact.attributes.get("plan", "")
    row["Désinscrit"] = "oui" if contact.opted_out else ""
    row["Client depuis"] = french(contact.customer_since)
    row[OWN_DATE] = contact.last_surveyed_at or ""
    row["nps_hold_until"] = contact.hold_until or ""
    row[NOTES] = f'note; on "{contact.external_id}"\nin two lines'
    return row


def french(day: date | None) -> str:
    return day.strftime("%d/%m/%Y") if day else ""


def write_rows(path: Path, columns: Sequence[str], rows: Any) -> None:
    """A file as spreadsheets save it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=";", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def contact_source(folder: Path) -> Iterator[CsvHarness]:
    yield CsvHarness(folder, OWN_DATE, "nps_hold_until")


@contextmanager
def contact_sink(folder: Path) -> Iterator[CsvHarness]:
    yield CsvHarness(folder)


field_admin = contact_sink
