"""The kill drill: workers die by SIGKILL at any moment, and afterwards everything adds up.

A mail server on loopback writes down what it accepts before it says so, and says so late: many of the kills fall
between its yes and our commit. Others fall into the write-back of the customer file, into reading and planning, or
anywhere. Meanwhile customers answer through the web process, which is killed as well, and the company adds customers to
its file. In the end the server's record, the ledger and the file are compared person by person.

The record is the judge: nobody has two mails; who has none is in doubt and shown so; nobody is forgotten.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.storage import schema
from tests.journeys.drill import (
    CustomerFile,
    Drill,
    Respondents,
    WebServer,
    again_and_again,
    killer,
    mail_server,
    web_server,
)
from tests.journeys.lives import lives
from tests.simulators.smtp import read_record
from tests.web.app import Installation

SEED = 20261125
#: Some of the lives are begun as an operator begins them; the others are forked from a process that is warm.
KILLS, TRUE_KILLS = 204, 12
LONG = 5  # BOUCLE_LONG_DRILLS=1: more than a thousand
CUSTOMERS_AT_FIRST = 150
AIMS = ("after acceptance", "while writing back", "reading and planning", "beside another", "anywhere")

WORKSPACE = """\
[workspace]
name = "Acme"

[brakes]
first_wave = 0

[connections.crm]
kind = "csv"
config = {{ path = "customers.csv" }}

[connections.mail]
kind = "smtp"
config = {{ host = "127.0.0.1", port = {port}, security = "none", sender = "Acme <survey@acme.example>" }}

[campaigns.relationship]
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_nobody_gets_two_mails_and_nobody_is_forgotten(
    tmp_path: Path, port: int, long_drills: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    scale, dice = (LONG if long_drills else 1), random.Random(SEED)
    record = tmp_path / "record"
    site = Installation(tmp_path, {"BOUCLE_BASE_URL": f"http://127.0.0.1:{port}"})
    with mail_server(record, SEED) as smtp_port:
        site.set_up(WORKSPACE.format(port=smtp_port), "")
        file = CustomerFile(tmp_path / "customers.csv")
        file.add(CUSTOMERS_AT_FIRST)
        respondents = Respondents(record, random.Random(SEED + 1))
        started = time.monotonic()
        with (
            (tmp_path / "log").open("w") as log,
            lives(site.process_environ(), log) as warm,
            web_server(site, port) as server,
        ):
            drill = Drill(site, record, dice, warm, file)
            with again_and_again(file.look, respondents.go_on, killer(server, random.Random(SEED + 2))):
                drill.run(KILLS * scale, TRUE_KILLS * scale)
            took = time.monotonic() - started
            drill.finish()
    ledger = read_ledger(site)
    status = site.flask("status", "--json").document
    with capsys.disabled():
        print(f"\n{summary(drill, server, respondents, ledger, took)}", end=" ")
    check_mails(read_record(record), file, ledger)
    check_doubts(ledger, status, drill)
    check_deaths(read_record(record), ledger, drill)
    check_file(file, ledger, respondents)
    assert not list(tmp_path.glob("*.boucle-part"))


# --- what must hold ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A touch with the delivery that carries it."""

    external_id: str
    touch: str
    delivery: str
    key: str
    score: int | None


def read_ledger(site: Installation) -> list[Asked]:
    t, i, d, r = schema.touches.c, schema.identities.c, schema.deliveries.c, schema.responses.c
    query = (
        select(i.external_id, t.state, d.state, d.key, r.score)
        .select_from(schema.touches)
        .join(schema.identities, i.id == t.identity_id)
        .join(schema.deliveries, d.touch_id == t.id)
        .outerjoin(schema.responses, r.touch_id == t.id)
        .where(d.kind == "send")
    )
    with site.context() as context, context.store.read() as tx:
        return [Asked(*row) for row in tx.execute(query)]


def summary(drill: Drill, server: WebServer, respondents: Respondents, ledger: list[Asked], took: float) -> str:
    doubts = sum(one.delivery == "unknown" for one in ledger)
    between = accepted_in_doubt(read_record(drill.record), ledger)
    aims = ", ".join(f"{number} {aim}" for aim, number in sorted(drill.kills.items()))
    return (
        f"kill drill: {drill.kills.total()} kills ({aims}) and {server.kills} of the web process in {took:.0f} s;"
        f" {len(ledger)} asked, {len(read_record(drill.record))} mails, {doubts} unknown,"
        f" {between} of them accepted: killed between the server's yes and our commit;"
        f" {len(respondents.given)} answers, {drill.file.looks} looks at the file"
    )


def accepted_in_doubt(mails: list[dict[str, str]], ledger: list[Asked]) -> int:
    """Messages the server took and we do not know of: each is a death between its yes and our commit.

    Those whose recipient answered are not among them, because an answer proves arrival.
    """
    taken = {mail["key"] for mail in mails}
    return sum(one.delivery == "unknown" and one.key in taken for one in ledger)


def check_mails(mails: list[dict[str, str]], file: CustomerFile, ledger: list[Asked]) -> None:
    by_key = Counter(mail["key"] for mail in mails)
    by_recipient = Counter(mail["recipient"] for mail in mails)
    assert {key: n for key, n in by_key.items() if n > 1} == {}
    assert {address: n for address, n in by_recipient.items() if n > 1} == {}
    # each who may be asked was, by one touch; nobody else was
    assert Counter(one.external_id for one in ledger) == Counter(file.askable.keys())
    for one in ledger:
        address = file.askable[one.external_id]
        assert by_recipient[address] == by_key[one.key], one
        assert by_recipient[address] == 1 or one.touch == "unknown", one
        assert one.touch in ("handed_over", "unknown", "answered"), one
    assert set(by_recipient) <= set(file.askable.values())


def check_doubts(ledger: list[Asked], status: dict[str, Any], drill: Drill) -> None:
    """What is in doubt is so in both state machines, is shown, and no more than one message per death."""
    for one in ledger:
        assert (one.delivery == "unknown") == (one.touch == "unknown"), one
        assert one.delivery in ("done", "unknown"), one
    doubts = sum(one.touch == "unknown" for one in ledger)
    assert status["touches"]["unknown"] == status["deliveries"]["unknown"] == doubts
    assert 0 < doubts <= drill.kills.total()
    assert status["touches"]["handed_over"] == sum(one.touch == "handed_over" for one in ledger)
    assert (status["touches"]["reserved"], status["touches"]["planned"]) == (0, 0)


def check_deaths(mails: list[dict[str, str]], ledger: list[Asked], drill: Drill) -> None:
    """The drill was one: enough deaths, at every place aimed at, and many at the worst moment."""
    assert drill.kills.total() >= 200
    assert set(AIMS) <= {aim for aim, number in drill.kills.items() if number >= 5}, drill.kills
    assert accepted_in_doubt(mails, ledger) >= drill.kills.total() / 10


def check_file(file: CustomerFile, ledger: list[Asked], respondents: Respondents) -> None:
    file.look()
    assert file.looks > 100
    assert file.broken == []
    shown = file.shown()
    scores = {one.external_id: one.score for one in ledger}
    assert respondents.given
    assert respondents.refused == []
    for external_id, score in respondents.given.items():
        assert scores[external_id] == score, f"the answer of {external_id} is lost"
    for external_id, row in shown.items():
        answered = scores.get(external_id)
        assert row["nps_score"] == ("" if answered is None else str(answered)), row
        assert bool(row["nps_last_surveyed_at"]) == (external_id in scores), row
