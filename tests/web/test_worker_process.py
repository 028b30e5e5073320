"""Real workers, started, stopped and killed: what one leaves behind, the next takes up at once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from tests.simulators.smtp import SmtpSimulator
from tests.web.app import Installation, answer_of, served

pytestmark = pytest.mark.slow

CUSTOMERS = 200
WORKSPACE = """\
[workspace]
name = "Acme"

[brakes]
first_wave = 0

[connections.crm]
kind = "csv"
config = { path = "customers.csv" }

[connections.mail]
kind = "mailbox"
config = { path = "mailbox", sender = "Acme <hello@acme.example>" }

[campaigns.relationship]
type = "nps"
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
"""


def customers(number: int = CUSTOMERS) -> str:
    rows = (f"{n},Person{n},person{n}@company{n}.example" for n in range(1, number + 1))
    return "\n".join(["id,first_name,email", *rows]) + "\n"


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path).set_up(WORKSPACE, customers())


@contextmanager
def worker(site: Installation) -> Iterator[subprocess.Popen[bytes]]:
    """`flask worker`, once it says that it works; what it says stands in the file `log`."""
    log = site.folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "worker"],
            cwd=site.folder,
            env=site.process_environ(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: b"working" in log.read_bytes())
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)


def wait_until(condition: Callable[[], object], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"did not come true within {seconds:g} s"
        time.sleep(0.05)


def files(site: Installation) -> list[Path]:
    return [path for part in ("new", "cur") for path in (site.folder / "mailbox" / part).glob("*")]


def sent(site: Installation) -> int:
    return len(files(site))


def mails(site: Installation) -> Counter[str]:
    """How many mails each address got."""
    read = (message_from_bytes(path.read_bytes(), policy=default) for path in files(site))
    return Counter(message["To"].addresses[0].addr_spec for message in read)


def is_swept(site: Installation) -> bool:
    return site.flask("status", "--json").document["last_sweep_at"] is not None


def test_a_worker_that_has_nothing_to_do_ends_well_within_seconds(tmp_path: Path) -> None:
    site = Installation(tmp_path).set_up(WORKSPACE, customers(0))
    for number in (signal.SIGTERM, signal.SIGINT):
        with worker(site) as process:
            wait_until(lambda: is_swept(site))
            asked_at = time.monotonic()
            process.send_signal(number)
            assert process.wait(20) == 0
            assert time.monotonic() - asked_at < 3.0
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_worker_does_the_whole_loop_by_itself(site: Installation) -> None:
    with worker(site) as process:
        wait_until(lambda: sent(site) == CUSTOMERS)
        wait_until(lambda: _written_back(site) == CUSTOMERS)
        process.terminate()
        assert process.wait(20) == 0
    assert set(mails(site).values()) == {1}


def _written_back(site: Installation) -> int:
    """Rows of the file that show when their customer was asked."""
    header, *rows = (site.folder / "customers.csv").read_text().splitlines()
    if "nps_last_surveyed_at" not in header:
        return 0
    column = header.split(",").index("nps_last_surveyed_at")
    return sum(bool(row.split(",")[column]) for row in rows)


def test_workers_killed_at_any_moment_are_replaced_at_once_and_nobody_is_asked_twice(site: Installation) -> None:
    dice = random.Random(20261125)
    kills = 0
    while (before := sent(site)) < CUSTOMERS and kills < 6:
        with worker(site) as process:
            wait_until(_more_than(before, site))
            time.sleep(dice.random() * 0.05)
            process.kill()
            kills += 1
    assert kills > 1
    started = time.monotonic()
    with worker(site) as process:
        wait_until(lambda: _settled(site))
        took = time.monotonic() - started
        process.terminate()
        assert process.wait(20) == 0
    print(f"{kills} kills, settled after {took:.1f} s")
    assert took < 30  # a lease lasts a minute: those of the dead were not waited for
    assert set(mails(site).values()) == {1}
    assert len(mails(site)) == CUSTOMERS


def _more_than(before: int, site: Installation) -> Callable[[], bool]:
    return lambda: sent(site) > before


def _settled(site: Installation) -> bool:
    document = site.flask("status", "--json").document
    waiting = document["deliveries"]
    asked = document["touches"]
    done = asked["handed_over"] + asked["unknown"]
    return done == CUSTOMERS and not waiting["ready"] and not waiting["sending"]


def test_a_tick_beside_a_worker_does_nothing_twice(site: Installation) -> None:
    with worker(site) as process:
        said = [site.process("tick", "--json") for _ in range(2)]
        wait_until(lambda: sent(site) >= CUSTOMERS)
        wait_until(lambda: _settled(site))
        process.terminate()
        assert process.wait(20) == 0
    assert [one.code for one in said] == [0, 0], said
    assert len(mails(site)) == CUSTOMERS
    assert set(mails(site).values()) == {1}


# --- a sender that takes its time -------------------------------------------------------------------------------------


@contextmanager
def slow_site(folder: Path) -> Iterator[tuple[Installation, SmtpSimulator]]:
    """Two messages a second: the send that has begun would take minutes."""
    with SmtpSimulator() as sim:
        smtp = (
            f'kind = "smtp"\nconfig = {{ host = "localhost", port = {sim.port}, security = "none", per_second = 2,'
            ' sender = "hello@acme.example" }'
        )
        before, _, after = WORKSPACE.partition('kind = "mailbox"\n')
        workspace = before + smtp + "\n" + after.partition("\n")[2]
        yield Installation(folder).set_up(workspace, customers()), sim


def _is_served(url: str, path: str) -> bool:
    return answer_of(url + path)[0] == 200


def test_a_server_in_the_middle_of_a_long_send_ends_when_asked(tmp_path: Path) -> None:
    with slow_site(tmp_path) as (site, sim), served(site) as (url, process):
        wait_until(lambda: len(sim.accepted) >= 2)
        # the send goes on for minutes, and looks like a worker that gets round all the same
        wait_until(lambda: _is_served(url, "/readyz"))
        asked_at = time.monotonic()
        process.terminate()
        said = process.communicate(timeout=40)[0]
        assert process.returncode == 0
        assert time.monotonic() - asked_at < 8.0  # well within gunicorn's 30 s, after which it kills
        sent = len(sim.accepted)
        assert "Traceback" not in said
    document = site.flask("status", "--json").document
    assert document["touches"]["handed_over"] == sent < CUSTOMERS
    assert document["touches"]["unknown"] == 0  # nothing was cut in the middle


def test_a_worker_in_the_middle_of_a_long_send_ends_when_asked(tmp_path: Path) -> None:
    with slow_site(tmp_path) as (site, sim), worker(site) as process:
        wait_until(lambda: len(sim.accepted) >= 2)
        asked_at = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - asked_at < 8.0
        sent = len(sim.accepted)
    document = site.flask("status", "--json").document
    assert (document["touches"]["handed_over"], document["touches"]["unknown"]) == (sent, 0)


def test_a_long_send_does_not_hold_up_the_write_backs(tmp_path: Path) -> None:
    with slow_site(tmp_path) as (site, sim), worker(site) as process:
        wait_until(lambda: 1 <= _written_back(site) < CUSTOMERS)
        assert len(sim.accepted) < CUSTOMERS
        assert process.poll() is None
