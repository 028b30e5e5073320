"""A whole Boucle in a folder of its own: settings by the environment, keys, database, customers, commands."""

from __future__ import annotations

import base64
import csv
import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from flask import Flask

from core.clock import DAY
from core.jobs.context import Context
from web.app import create_app
from web.settings import Settings, load
from web.wiring import build_context, close_context, prepare_database

#: Set and empty: a `.env` in the checkout must not reach the tests.
UNSET = (
    "BOUCLE_ALLOW_PRIVATE_ENDPOINTS",
    "BOUCLE_BASE_URL",
    "BOUCLE_CLOCK_OFFSET",
    "BOUCLE_EMBEDDED_WORKER",
    "BOUCLE_HEARTBEAT_URL",
    "DATABASE_URL",
    "PORT",
)
ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "k1:" + base64.b64encode(bytes(range(32))).decode()

WORKSPACE = """\
[workspace]
name = "Acme"

[connections.crm]
kind = "csv"
config = { path = "customers.csv" }

[connections.mail]
kind = "mailbox"
config = { path = "mailbox", sender = "Acme <hello@acme.example>" }

[campaigns.relationship]
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
"""

CUSTOMERS = """\
id,first_name,last_name,email,language,opted_out
1,Ada,Promoter,ada@acme.example,en,
2,Bo,Passive,bo@bolt.example,fr,
3,Cleo,Detractor,cleo@corp.example,en,
4,Dot,Unsubscribed,dot@dash.example,en,yes
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails where there is anything else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(slots=True)
class Installation:
    """`flask(...)` runs a command in this process, `process(...)` in one of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {"BOUCLE_INSTANCE": str(self.folder / "instance"), "BOUCLE_SECRET_KEYS": KEY}
        self.environ = {**dict.fromkeys(UNSET, ""), **own, **self.environ}

    @property
    def settings(self) -> Settings:
        return load(self.environ, self.folder / "no.env")

    def write(self, workspace: str = WORKSPACE, customers: str = CUSTOMERS) -> Path:
        """The workspace file, beside its customers."""
        (self.folder / "customers.csv").write_text(customers, encoding="utf-8")
        path = self.folder / "workspace.toml"
        path.write_text(textwrap.dedent(workspace), encoding="utf-8")
        return path

    def set_up(self, workspace: str = WORKSPACE, customers: str = CUSTOMERS) -> Installation:
        """Migrated, with a workspace applied."""
        prepare_database(self.settings)
        path = self.write(workspace, customers)
        done = self.flask("apply", str(path))
        assert done.code == 0, done.err
        return self

    def moved(self, days: float) -> Installation:
        """The same, seen with the clock moved on."""
        return Installation(self.folder, {**self.environ, "BOUCLE_CLOCK_OFFSET": str(days * DAY.total_seconds())})

    @contextmanager
    def context(self) -> Iterator[Context]:
        """The world of the jobs."""
        built = build_context(self.settings)
        try:
            yield built
        finally:
            close_context(built)

    def app(self) -> Flask:
        """The application under a server, without its worker."""
        return create_app(self.settings)

    def flask(self, *arguments: str) -> Said:
        """A command in this process: quick, for everything that does not depend on starting one."""
        with _environment({**self.environ, "FLASK_RUN_FROM_CLI": "true"}), _signals():
            result = create_app().test_cli_runner().invoke(args=list(arguments), prog_name="flask")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    def process(self, *arguments: str, timeout: float = 60) -> Said:
        """`flask ...` as an operator starts it."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=self.folder,
            env=self.process_environ(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def mails(self) -> dict[str, str]:
        """The text of the mail in the local mailbox, by address."""
        found = {}
        for path in (self.folder / "mailbox").rglob("*.eml*"):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            body = message.get_body(("plain",))
            assert body is not None
            found[str(message["To"].addresses[0].addr_spec)] = body.get_content()
        return found

    def answer(self, address: str, score: int, comment: str = "", **more: str) -> None:
        """Follow the link of the mail and send the form of its page, as a browser does; `more` are further fields."""
        (link, *_) = re.findall(r"https?://[^\s>/]+(/s/[A-Za-z0-9_-]+)", self.mails()[address])
        app = self.app()
        try:
            client = app.test_client()
            page = client.get(link)
            assert page.status_code == 200
            hidden = dict(_field(one) for one in re.findall(r"<input\b[^>]*\btype=\"hidden\"[^>]*>", page.text))
            posted = {**hidden, "score": str(score), "comment": comment, **more}
            assert client.post(link, data=posted, follow_redirects=True).status_code == 200
        finally:
            close_context(app.extensions["boucle"])

    def rows(self) -> dict[str, dict[str, str]]:
        """The customer file as it is now, by id."""
        with (self.folder / "customers.csv").open(encoding="utf-8", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    def process_environ(self) -> dict[str, str]:
        """The environment of a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BOUCLE_", "FLASK_"))}
        return {**inherited, **self.environ, "FLASK_APP": f"{ROOT / 'wsgi.py'}:app", "FLASK_SKIP_DOTENV": "1"}


def _field(tag: str) -> tuple[str, str]:
    attributes = dict(re.findall(r"(\w+)=\"([^\"]*)\"", tag))
    return attributes["name"], html.unescape(attributes.get("value", ""))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _signals() -> Iterator[None]:
    """Commands set handlers of their own; the tests keep theirs."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


# --- a service of its own -------------------------------------------------------------------------------------------


@contextmanager
def served(site: Installation) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """gunicorn as `./run` starts it, worker included; (its address, the process)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--no-control-socket", "--workers", "1", "--threads", "8", "--log-level", "warning")
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "--chdir", str(ROOT), "--bind", f"127.0.0.1:{port}", "wsgi:app"],
        cwd=site.folder,
        env={**site.process_environ(), "BOUCLE_EMBEDDED_WORKER": "1", "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=40)


def wait_until(condition: Callable[[], object], seconds: float = 40) -> None:
    """Fails when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"did not come true within {seconds:g} s")


def answer_of(url: str) -> tuple[int, str]:
    """(status, text); status 0 while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
