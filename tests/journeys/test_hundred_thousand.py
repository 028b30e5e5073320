"""The main job on real input: 100,000 customers in a file, a mail server on loopback, real processes, a moved clock.

Everything is checked against a reading of the same file that shares no code with the service.
"""

from __future__ import annotations

import csv
import random
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.simulators.smtp import read_record
from tests.web.app import ROOT, Installation

ROWS = 100_000
PER_COMPANY = 25
SHARE = 0.2
ANSWERED = 60
SHARE_OF_PRO = 0.04  # of the customers: some 3,500 of them may be asked
TENURE_DAYS = 30
MOVED_DAYS = 91
HOUR = timedelta(hours=1)

WORKSPACE = """\
[workspace]
name = "Acme"
languages = ["fr", "en"]
time_zone = "Europe/Paris"

[quarantine]
company_share = {share}

[brakes]
first_wave = 0

[connections.crm]
kind = "csv"
config = {{ path = "customers.csv", fields = {{ plan = "Offre" }} }}

[connections.mail]
kind = "smtp"
config = {{ host = "127.0.0.1", port = {port}, security = "none", sender = "Acme <survey@acme.example>" }}

[campaigns.relationship]
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
audience = {{ country = {{ not = ["US"] }}, plan = "pro" }}
"""
HEADER = [
    "Identifiant",
    "Prénom",
    "Nom",
    "Courriel",
    "Société",
    "Pays",
    "Langue",
    "Offre",
    "Client depuis",
    "Désinscrit",
]


@dataclass(frozen=True)
class Customer:
    """One row, as far as the rules look at it."""

    id: str
    address: str
    company: str
    since: date
    askable: bool  # has an address, is in the audience, did not opt out


class Customers:
    """The file as it was written, and who may be asked by a plain reading of the rules."""

    def __init__(self, path: Path, today: date, seed: int = 7) -> None:
        choose = random.Random(seed)
        self.path = path
        self.all: list[Customer] = []
        self.contacts: Counter[str] = Counter()  # per company: with an address, not opted out
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(HEADER)
            for number in range(1, ROWS + 1):
                company = f"Société {number // PER_COMPANY}"
                has_address, opted_out = choose.random() > 0.02, choose.random() < 0.03
                country, pro = choose.choice(("FR", "BE", "BE", "US")), choose.random() < SHARE_OF_PRO
                since = today - timedelta(days=choose.randrange(1, 900))
                address = f"client{number}@societe{number // PER_COMPANY}.example" if has_address else ""
                row = [f"C{number}", "Zoé", f"Nom{number}", address, company, country, choose.choice(("fr", "en"))]
                writer.writerow([*row, "pro" if pro else "essai", f"{since:%d/%m/%Y}", "oui" if opted_out else ""])
                reachable = has_address and not opted_out
                self.contacts[company] += reachable
                askable = reachable and pro and country != "US"
                self.all.append(Customer(f"C{number}", address, company, since, askable))
        self.by_address = {one.address: one for one in self.all if one.address}

    def due(self, on: date, but: Collection[str] = ()) -> set[str]:
        """The addresses of all who may be asked on a day, company by company without its limit."""
        return {
            one.address
            for one in self.all
            if one.askable and (on - one.since).days >= TENURE_DAYS and one.address not in but
        }

    def quota(self, company: str) -> int:
        return max(1, int(SHARE * self.contacts[company] + 1e-9))

    def check_asked(self, asked: list[str], due: set[str]) -> None:
        """Each exactly once, nobody who was not due, and of every company as many as its share allows."""
        assert len(set(asked)) == len(asked)
        assert set(asked) <= due
        wanted = Counter(self.by_address[address].company for address in due)
        got = Counter(self.by_address[address].company for address in asked)
        assert got == {company: min(number, self.quota(company)) for company, number in wanted.items()}

    def rows(self) -> dict[str, dict[str, str]]:
        """The file as it is now, by id."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            return {row["Identifiant"]: row for row in csv.DictReader(file, delimiter=";")}

    def untouched(self) -> list[list[str]]:
        """Our columns left out."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            return [row[: len(HEADER)] for row in csv.reader(file, delimiter=";")]


@contextmanager
def mail_server(record: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.simulators.smtp", "--record", str(record), "--fast"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def web_server(installed: Installation, port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    environ = installed.process_environ()
    with subprocess.Popen([*command, "wsgi:app"], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(url: str) -> None:
    for _ in range(150):
        try:
            urllib.request.urlopen(url, timeout=2).close()  # loopback only
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def answer(link: str, score: int, comment: str) -> None:
    """As a browser without JavaScript does: fetch the page, fill the form in, send it."""
    with urllib.request.urlopen(link, timeout=20) as response:
        page = response.read().decode()
    form = next(found for found in re.findall(r"<form.*?</form>", page, re.S) if 'name="score"' in found)
    values = dict(_value(tag) for tag in re.findall(r'<input[^>]*type="hidden"[^>]*>', form))
    action = re.search(r'<form[^>]*action="([^"]*)"', form)
    target = urllib.parse.urljoin(link, action[1] if action else "")
    body = urllib.parse.urlencode({**values, "score": score, "comment": comment}).encode()
    with urllib.request.urlopen(urllib.request.Request(target, body), timeout=20) as response:
        assert response.status == 200


def _value(tag: str) -> tuple[str, str]:
    name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
    return (name[1] if name else "", value[1] if value else "")


def tick(installed: Installation) -> dict[str, dict[str, Any]]:
    said = installed.process("tick", "--json", timeout=280)
    assert said.code == 0, said.err
    return {one["job"]: one for one in said.document["jobs"]}


def category(score: int) -> str:
    return "promoter" if score >= 9 else "passive" if score >= 7 else "detractor"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_file_of_100000_customers_goes_round(tmp_path: Path) -> None:
    customers = Customers(tmp_path / "customers.csv", datetime.now(UTC).date())
    as_written = customers.untouched()
    port = 20_000 + random.Random(str(tmp_path)).randrange(20_000)
    with mail_server(tmp_path / "record") as smtp_port:
        workspace = WORKSPACE.format(share=SHARE, port=smtp_port)
        installed = Installation(tmp_path, {"BOUCLE_BASE_URL": f"http://127.0.0.1:{port}"})
        (tmp_path / "workspace.toml").write_text(workspace, encoding="utf-8")
        assert installed.process("migrate").code == 0
        said = installed.process("apply", str(tmp_path / "workspace.toml"))
        assert said.code == 0, said.err

        # everybody who may be asked, up to the limits, gets exactly one mail
        today = datetime.now(UTC).date()
        jobs = tick(installed)
        assert jobs["sync_contacts"]["done"] == ROWS
        first = read_record(tmp_path / "record")
        asked = [mail["recipient"] for mail in first]
        customers.check_asked(asked, customers.due(today))

        # a second wave the same day asks nobody
        tick(installed)
        assert len(read_record(tmp_path / "record")) == len(first)

        # the answers of some arrive in the right rows, and nothing else of the file changes
        with web_server(installed, port):
            given = {
                customers.by_address[mail["recipient"]].id: answer_somehow(mail["link"]) for mail in first[:ANSWERED]
            }
            gone = {mail["recipient"] for mail in first[ANSWERED : ANSWERED + 5]}
            for mail in first[ANSWERED : ANSWERED + 5]:
                unsubscribe(mail["link"])
        tick(installed)
        assert customers.untouched() == as_written
        check_rows(customers, given, {customers.by_address[address].id for address in asked})

        # 91 days later all of them are due again, with those who have been customers long enough by now
        tick(installed.moved(MOVED_DAYS))
        second = [mail["recipient"] for mail in read_record(tmp_path / "record")[len(first) :]]
        customers.check_asked(second, customers.due(today + timedelta(days=MOVED_DAYS), but=gone))
        assert len(set(asked) & set(second)) > len(asked) * 0.9


def answer_somehow(link: str) -> tuple[int, str]:
    choose = random.Random(link)
    score, comment = choose.randrange(11), choose.choice(("", "Très bien ; merci", 'Un "mot",\nsur deux lignes'))
    answer(link, score, comment)
    return score, comment


def unsubscribe(link: str) -> None:
    """As a mail program does (RFC 8058)."""
    target = urllib.request.Request(link.replace("/s/", "/u/"), b"List-Unsubscribe=One-Click")
    with urllib.request.urlopen(target, timeout=20) as response:
        assert response.status == 200


def check_rows(customers: Customers, given: Mapping[str, tuple[int, str]], asked: set[str]) -> None:
    paris = ZoneInfo("Europe/Paris")
    days = {f"{moment.astimezone(paris):%Y-%m-%d}" for now in [datetime.now(UTC)] for moment in (now, now - HOUR)}
    for external_id, row in customers.rows().items():
        score, comment = given.get(external_id, (None, ""))
        assert row["nps_score"] == ("" if score is None else str(score))
        assert row["nps_category"] == ("" if score is None else category(score))
        assert row["nps_comment"] == comment
        assert (row["nps_responded_at"] in days) == (score is not None)
        assert (row["nps_last_surveyed_at"] in days) == (external_id in asked)
