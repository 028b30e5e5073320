"""`./run` before the service starts: settings, keys, and the sample that must never join real customers.

Each test has a checkout of its own with a stand-in application, and borrows the packages of the running interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STAND_IN = """
import json, os, pathlib, shutil
import click
from flask import Flask

def create_app():
    app = Flask(__name__)
    root = pathlib.Path(__file__).parent.parent
    applied = pathlib.Path(os.environ["BOUCLE_INSTANCE"], "applied")
    app.get("/")(lambda: os.environ.get("BOUCLE_EMBEDDED_WORKER", "unset"))

    @app.cli.command("migrate")
    def migrate():
        print("migrated")

    @app.cli.command("apply")
    @click.argument("path", type=pathlib.Path)
    def apply(path):
        applied.write_text(path.read_text())

    @app.cli.command("sample")
    @click.option("--into", type=pathlib.Path)
    def sample(into):
        shutil.copytree(root / "sample", into)

    @app.cli.command("status")
    @click.option("--json", "as_json", is_flag=True)
    def status(as_json):
        names = ("DATABASE_URL", "BOUCLE_INSTANCE", "STRANGER")
        found = {name: os.environ.get(name) for name in names}
        print(json.dumps({"connections": [applied.read_text()] if applied.exists() else [], **found}))

    return app
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a path with a space, set up as far as the packages."""
    root = tmp_path / "a checkout"
    (root / "web").mkdir(parents=True)
    (root / "web" / "app.py").write_text(STAND_IN)
    (root / "core" / "storage" / "migrations").mkdir(parents=True)
    (root / "core" / "storage" / "migrations" / "first.py").write_text("")
    (root / "sample").mkdir()
    (root / "sample" / "workspace.toml").write_text("the sample")
    for name in ("run", "wsgi.py", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    venv = root / ".venv"
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith(".installed"):
            (venv / entry.name).symlink_to(entry)
    (venv / ".installed-run").write_text(hashlib.sha256((root / "requirements.txt").read_bytes()).hexdigest())
    return root


def run(
    checkout: Path, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "run", *arguments],
        cwd=cwd or checkout,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status_of(checkout: Path, env: dict[str, str] | None = None) -> dict[str, object]:
    result = run(checkout, "flask", "status", "--json", env=env)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@contextmanager
def served(checkout: Path) -> Iterator[str]:
    """The service while it runs, by its address."""
    port = free_port()
    with (checkout / "log").open("w") as log:
        process = subprocess.Popen(
            [checkout / "run"], env={**os.environ, "PORT": str(port)}, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, checkout / "log")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"nothing answers on {url}: {log.read_text()}")


def test_unknown_command_is_wrong_use(checkout: Path) -> None:
    result = run(checkout, "serv")
    assert result.returncode == 2
    assert result.stdout == ""
    assert '"serv"' in result.stderr
    assert "Usage: ./run" in result.stderr


def test_json_stays_pure_on_the_very_first_command(checkout: Path) -> None:
    result = run(checkout, "flask", "status", "--json")
    assert json.loads(result.stdout)["connections"] == []
    assert "migrated" in result.stderr


def test_relative_path_is_that_of_the_caller(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("mine")
    assert run(checkout, "flask", "apply", "mine.toml", cwd=tmp_path).returncode == 0
    assert status_of(checkout)["connections"] == ["mine"]


def test_env_file_is_data_and_the_environment_wins(checkout: Path) -> None:
    (checkout / ".env").write_text(
        'DATABASE_URL="sqlite:///a b.db" # ours\nBOUCLE_INSTANCE=my state\nSTRANGER=1\nEVIL=$(touch evil)\ntouch evil\n'
    )
    found = status_of(checkout)
    assert found["DATABASE_URL"] == "sqlite:///a b.db"
    assert found["BOUCLE_INSTANCE"] == str(checkout / "my state")
    assert found["STRANGER"] is None
    assert not list(checkout.rglob("evil"))
    assert status_of(checkout, {"DATABASE_URL": "sqlite:///other.db"})["DATABASE_URL"] == "sqlite:///other.db"


def test_key_is_made_once_and_is_its_owners_alone(checkout: Path) -> None:
    status_of(checkout)
    keys = checkout / "instance" / "secret_keys"
    first = keys.read_text()
    status_of(checkout)
    assert keys.read_text() == first
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700


def test_given_keys_are_not_written_down(checkout: Path) -> None:
    status_of(checkout, {"BOUCLE_SECRET_KEYS": "k1:AAAA"})
    assert not (checkout / "instance" / "secret_keys").exists()


def test_folder_that_takes_no_key_is_told_without_a_stack_trace(checkout: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "secret_keys.new").mkdir(parents=True)  # root may write to a locked folder, but over no folder
    result = run(checkout, "flask", "status", env={"BOUCLE_INSTANCE": str(state)})
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    assert "secret_keys could not be written" in result.stderr


@pytest.mark.parametrize("port", ["0", "65536", "http", "80; true"])
def test_bad_port_is_one_clear_sentence(checkout: Path, port: str) -> None:
    result = run(checkout, env={"PORT": port})
    assert result.returncode == 1
    assert result.stderr == f'boucle: PORT is "{port}"; it must be a number from 1 to 65535.\n'


def test_first_start_serves_with_the_sample(checkout: Path) -> None:
    with served(checkout) as url:
        assert urllib.request.urlopen(url, timeout=5).read() == b"1"
        assert f"Boucle: {url} " in (checkout / "log").read_text()
        taken = run(checkout, env={"PORT": url.rsplit(":", 1)[1]})
    assert taken.returncode == 1
    assert "cannot be used" in taken.stderr
    assert status_of(checkout)["connections"] == ["the sample"]
    assert (checkout / "instance" / "sample" / "workspace.toml").exists()


def test_sample_never_joins_a_workspace_that_is_there(checkout: Path) -> None:
    (checkout / "mine.toml").write_text("mine")
    assert run(checkout, "flask", "apply", "mine.toml").returncode == 0
    with served(checkout):
        pass
    assert status_of(checkout)["connections"] == ["mine"]
    assert not (checkout / "instance" / "sample").exists()


def test_sample_is_not_applied_again_over_changes(checkout: Path) -> None:
    with served(checkout):
        pass
    (checkout / "instance" / "applied").unlink()
    with served(checkout):
        pass
    assert status_of(checkout)["connections"] == []
