"""What the kill drill is made of: a customer file that is watched, respondents, a web process, workers that die."""

from __future__ import annotations

import csv
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.journeys.lives import ROOT, Life, Lives
from tests.simulators.smtp import read_record
from tests.web.app import Installation
from tests.web.survey import Form

#: Customers a life finds beside those before it.
ADDED = 12
#: The server's yes comes so late at most, in seconds.
LATE = 0.03
#: Seconds after which a life ends whether the moment aimed at has come or not.
LONGEST_LIFE = 2.5
LONGEST_TRUE_LIFE = 20.0
HEADER = ["id", "name", "email", "opted_out"]


# --- the company's file -----------------------------------------------------------------------------------------------


class CustomerFile:
    """The file, watched: whatever is read of it at any moment must be whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[list[str]] = []
        self.looks = 0
        self.broken: list[str] = []
        self._at_least = 0  # rows that must be there: those written before the look began
        path.write_text(",".join(HEADER) + "\n", encoding="utf-8")

    def add(self, number: int) -> None:
        """New customers at the end, as the company's own program writes them. No worker may live meanwhile."""
        fresh = [_customer(len(self.rows) + 1 + index) for index in range(number)]
        with self.path.open(encoding="utf-8", newline="") as file:
            table = list(csv.reader(file))
        assert table, "somebody was killed while writing the file, and it is empty"
        table += [[*row, *[""] * (len(table[0]) - len(row))] for row in fresh]
        copy = self.path.with_suffix(".new")
        with copy.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
        self.rows += fresh  # before the renaming: a look may see them from then on
        copy.rename(self.path)
        self._at_least = len(self.rows)

    @property
    def askable(self) -> dict[str, str]:
        """Address by id of everybody who may be asked."""
        return {row[0]: row[2] for row in self.rows if row[2] and not row[3]}

    def look(self) -> None:
        """Read it as anybody may at any moment."""
        at_least = self._at_least
        with self.path.open(encoding="utf-8", newline="") as file:
            header, *table = list(csv.reader(file)) or [[]]
        self.looks += 1
        width = len(HEADER)
        whole = at_least <= len(table) <= len(self.rows) and header[:width] == HEADER
        if not (whole and all(row[:width] == was for row, was in zip(table, self.rows, strict=False))):
            self.broken.append(f"look {self.looks}: {len(table)} rows, at least {at_least} expected, header {header}")

    def shown(self) -> dict[str, dict[str, str]]:
        """The rows by id, with our columns."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}


def _customer(number: int) -> list[str]:
    """Every 17th has no address, every 23rd opted out."""
    address = "" if number % 17 == 0 else f"person{number}@company{number}.example"
    return [f"C{number}", f"Person {number}", address, "yes" if number % 23 == 0 else ""]


# --- those who answer -------------------------------------------------------------------------------------------------


class Respondents:
    """Some of those who got a mail answer. `given` are the answers that the server said it has: by id of customer."""

    def __init__(self, record: Path, dice: random.Random) -> None:
        self._record = record
        self._dice = dice
        self._read = 0
        self.given: dict[str, int] = {}
        self.lost_calls = 0
        self.refused: list[str] = []

    def go_on(self) -> None:
        """Answer some of the mails that have come since."""
        fresh = read_record(self._record)[self._read :]
        self._read += len(fresh)
        for mail in fresh:
            if self._dice.random() < 0.15:
                self._answer(mail, self._dice.randrange(11))

    def _answer(self, mail: dict[str, str], score: int) -> None:
        try:
            if _post_answer(mail["link"], score):
                self.given["C" + mail["recipient"].removeprefix("person").partition("@")[0]] = score
        except urllib.error.HTTPError as error:  # a server that is there takes every answer
            self.refused.append(f"{error.code} for {mail['recipient']}")
        except OSError:  # no server, or one that was killed before it could answer: nothing was promised
            self.lost_calls += 1


def _post_answer(link: str, score: int) -> bool:
    """As a browser without JavaScript does. Whether the server said that it has the answer."""
    form = Form()
    with urllib.request.urlopen(link, timeout=10) as page:
        form.feed(page.read().decode())
    body = urllib.parse.urlencode({**form.fields, "score": score, "comment": f"score {score}"}).encode()
    target = urllib.request.Request(urllib.parse.urljoin(link, form.action), body)
    with urllib.request.urlopen(target, timeout=10) as answer:
        return bool(answer.status == 200)


class WebServer:
    """gunicorn without a worker, as it serves survey pages on many machines; killed and started again."""

    def __init__(self, site: Installation, port: int) -> None:
        self._site = site
        self._port = port
        self.kills = 0
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        options = ("--no-control-socket", "--threads", "4", "--log-level", "error", "--bind", f"127.0.0.1:{self._port}")
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "wsgi:app"],
            cwd=ROOT,
            env=self._site.process_environ(),
            start_new_session=True,
        )

    def kill(self) -> None:
        """Master and worker, at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        self.kills += 1

    def begin_again(self) -> None:
        self.kill()
        self._process = self._start()

    def is_up(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5).close()
            return True
        return False


# --- the drill --------------------------------------------------------------------------------------------------------


@dataclass
class Drill:
    """One world of processes, files and sockets. `kills` counts SIGKILLs by what they were aimed at."""

    site: Installation
    record: Path
    dice: random.Random
    lives: Lives
    file: CustomerFile
    kills: Counter[str] = field(default_factory=Counter)
    ended: int = 0  # lives that were over before they could be killed

    def accepted(self) -> int:
        """How large the server's record is: it grows the moment something is accepted."""
        return self.record.stat().st_size if self.record.exists() else 0

    def is_writing_back(self) -> bool:
        return any(path.name.endswith(".boucle-part") for path in self.site.folder.iterdir())

    def aim(self) -> tuple[str, Callable[[], bool]]:
        """Where the next kill goes, and whether its moment has come. To be called when the life begins."""
        before, after = self.accepted(), self.dice.choice((1, 1, 2, 3, 6)) * 150  # bytes: a line has some 200
        aims: list[tuple[str, Callable[[], bool]]] = [
            ("after acceptance", lambda: self.accepted() > before + after),
            ("while writing back", self.is_writing_back),
            ("anywhere", _after(self.dice.uniform(0.0, 0.7))),
        ]
        return self.dice.choices(aims, weights=(5, 2, 3))[0]

    def run_life(self, begin: Callable[[], Life], longest: float) -> None:
        """Begin a life and kill it when the moment comes, or some time after."""
        what, come = self.aim()
        life = begin()
        until = time.monotonic() + longest
        try:
            while not come() and not life.is_over() and time.monotonic() < until:
                time.sleep(0.0005)
            time.sleep(self.dice.choice((0.0, 0.0, 0.002, 0.01)))
        finally:
            killed = life.kill()
            life.close()
        self.kills[what] += killed
        self.ended += not killed

    def run_pair(self) -> None:
        """Two workers at once; one is killed, the other goes on with what it left, until it is killed too."""
        first = self.lives.begin("worker")
        try:
            self.run_life(lambda: self.lives.begin("worker"), LONGEST_LIFE)
            time.sleep(self.dice.uniform(0.0, 0.2))
        finally:
            self.kills["beside another"] += first.kill()
            first.close()

    def read_and_plan(self) -> None:
        """New customers, and a process that reads and plans, killed at any moment of that."""
        self.file.add(ADDED)
        life = self.lives.begin("tick")
        try:
            life.is_over(self.dice.uniform(0.05, 1.5))
        finally:
            self.kills["reading and planning"] += life.kill()
            life.close()

    def begin_truly(self) -> Life:
        """`flask worker` or `flask tick`, from the command line."""
        what = self.dice.choice(("worker", "tick"))
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", what],
            cwd=self.site.folder,
            env=self.site.process_environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=process.wait, daemon=True).start()  # collects it when it ends
        return Life(process.pid)

    def run(self, kills: int, true_kills: int) -> None:
        """So many lives and deaths."""
        every = kills // true_kills
        for number in itertools.count(1):
            if self.kills.total() >= kills:
                return
            if number % every == 0:
                self.file.add(ADDED)
                self.run_life(self.begin_truly, LONGEST_TRUE_LIFE)
            elif number % 4 == 0:
                self.read_and_plan()
            elif number % 10 == 1:
                self.run_pair()
            else:
                self.run_life(lambda: self.lives.begin("worker"), LONGEST_LIFE)

    def finish(self) -> None:
        """Let it run to the end: whatever the killed ones left is taken up, sent, told and written."""
        for _ in range(5):
            said = self.site.process("tick", "--json", timeout=120)
            status = self.site.process("status", "--json").document
            waiting = status["deliveries"]
            if not (waiting["ready"] or waiting["sending"] or status["touches"]["planned"]):
                return
        raise AssertionError(f"something is still due: {status}; the last tick said {said.out} {said.err}")


def _after(seconds: float) -> Callable[[], bool]:
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment


@contextmanager
def mail_server(record: Path, seed: int) -> Iterator[int]:
    options = ("--record", str(record), "--late", str(LATE), "--seed", str(seed))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.simulators.smtp", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def again_and_again(*work: Callable[[], None]) -> Iterator[None]:
    """Beside everything else, each in a thread of its own. What one raises is raised here in the end."""
    over = threading.Event()
    failed: list[BaseException] = []

    def repeat(one: Callable[[], None]) -> None:
        try:
            while not over.wait(0.02):
                one()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=repeat, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    if failed:
        raise failed[0]


@contextmanager
def web_server(site: Installation, port: int) -> Iterator[WebServer]:
    server = WebServer(site, port)
    try:
        yield server
    finally:
        server.kill()


def killer(server: WebServer, dice: random.Random, server_lives: float = 10.0) -> Callable[[], None]:
    """Kills the web process now and then, at any moment; sometimes before it has come up."""
    moment = time.monotonic() + dice.expovariate(1 / server_lives)

    def look() -> None:
        nonlocal moment
        if time.monotonic() >= moment:
            server.begin_again()
            moment = time.monotonic() + dice.expovariate(1 / server_lives)

    return look
