"""Commands and the service as processes of their own: what only a real start can show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.app import Installation, answer_of, served, wait_until


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path).set_up()


def test_json_is_the_only_thing_on_stdout(site: Installation) -> None:
    ticked = site.process("tick", "--json")
    assert ticked.code == 0, ticked
    assert [one["failed"] for one in ticked.document["jobs"]] == [0] * 7
    assert site.process("status", "--json").document["touches"]["handed_over"] == 3


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("PORT", "http", 'PORT is "http"; it must be a number from 1 to 65535'),
        ("BOUCLE_BASE_URL", "nps.example.com", "BOUCLE_BASE_URL must be an address"),
        ("BOUCLE_CLOCK_OFFSET", "a week", "must be a number of seconds"),
    ],
)
def test_setting_that_cannot_be_is_wrong_use(site: Installation, variable: str, value: str, part: str) -> None:
    said = Installation(site.folder, {variable: value}).process("status")
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert part in said.err


def test_lost_keys_are_named_by_a_process_that_ends(site: Installation) -> None:
    said = Installation(site.folder, {"BOUCLE_SECRET_KEYS": "k9:" + "A" * 43 + "="}).process("tick")
    assert (said.code, said.out) == (1, "")
    assert "k1" in said.err
    assert "Traceback" not in said.err


def test_reader_that_closes_early_gets_no_stack_trace(site: Installation) -> None:
    """`flask deliveries list | head -1`"""
    command = f"{sys.executable} -m flask connections schema smtp | head -1"
    done = subprocess.run(
        command, shell=True, cwd=site.folder, env=site.process_environ(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_worker_does_what_is_due_and_ends_when_asked(site: Installation) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "worker"],
        cwd=site.folder,
        env=site.process_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(list((site.folder / "mailbox").rglob("*.eml*"))) == 3)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


# --- the service ----------------------------------------------------------------------------------------------------


def test_service_comes_up_works_and_says_so(site: Installation) -> None:
    with served(site) as (url, process):
        wait_until(lambda: answer_of(f"{url}/healthz")[0] == 200 or process.poll() is not None)
        assert process.poll() is None
        wait_until(lambda: answer_of(f"{url}/readyz")[0] == 200)
        wait_until(lambda: answer_of(f"{url}/")[1].count("/home/mails/") == 3)
        assert "Acme" in answer_of(f"{url}/")[1]
        assert 'boucle_touches{state="handed_over"} 3.0' in answer_of(f"{url}/metrics")[1]
        process.terminate()
        assert process.wait(timeout=40) == 0


def test_service_without_its_keys_ends_for_good_and_says_why(site: Installation) -> None:
    """Not tried again for ever: gunicorn stops when its worker ends with 3."""
    lost = Installation(site.folder, {"BOUCLE_SECRET_KEYS": "k9:" + "A" * 43 + "="})
    with served(lost) as (_, process):
        out, _ = process.communicate(timeout=40)
    assert process.returncode == 3
    assert "k1" in out
    assert "Traceback (most recent call last)" not in out.split("boucle:")[0]


def test_command_needs_no_terminal_and_no_home(site: Installation) -> None:
    """As cron starts it: hardly any environment."""
    environ = {name: value for name, value in site.process_environ().items() if name != "HOME"}
    environ["PATH"] = os.defpath
    done = subprocess.run(
        [sys.executable, "-m", "flask", "status", "--json"],
        cwd="/",
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["connections"]
