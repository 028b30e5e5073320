"""The settings of a process: where each comes from, and what a wrong one is answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from core.errors import Invalid
from web.settings import ROOT, Settings, load


def read(tmp_path: Path, environ: Mapping[str, str], env_file: str = "") -> Settings:
    path = tmp_path / ".env"
    path.write_text(env_file, encoding="utf-8")
    return load(environ, path)


def test_nothing_set_is_a_service_on_this_machine(tmp_path: Path) -> None:
    assert load({}, tmp_path / "missing.env") == Settings(
        instance=ROOT / "instance",
        database_url=f"sqlite:///{ROOT / 'instance' / 'boucle.db'}",
        base_url="http://127.0.0.1:8000",
    )


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, {"PORT": "8002"}, "PORT=8001\nBOUCLE_BASE_URL=https://nps.example.com/\n")
    assert (found.port, found.base_url) == (8002, "https://nps.example.com")


def test_the_file_is_data_and_never_run(tmp_path: Path) -> None:
    found = read(tmp_path, {}, 'BOUCLE_SECRET_KEYS="k1:$(touch oops)"\nPORT\nexport DATABASE_URL=sqlite:////tmp/x.db\n')
    assert found.secret_keys == "k1:$(touch oops)"
    assert found.database_url == "sqlite:////tmp/x.db"
    assert not (tmp_path / "oops").exists()


def test_the_folder_of_state_carries_database_and_keys(tmp_path: Path) -> None:
    found = read(tmp_path, {"BOUCLE_INSTANCE": str(tmp_path / "state")})
    assert found.database_url == f"sqlite:///{tmp_path / 'state' / 'boucle.db'}"
    assert found.key_file == tmp_path / "state" / "secret_keys"


def test_a_relative_folder_is_within_the_checkout_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path, {"BOUCLE_INSTANCE": "elsewhere"}).instance == ROOT / "elsewhere"


@pytest.mark.parametrize("empty", ["PORT", "DATABASE_URL", "BOUCLE_INSTANCE", "BOUCLE_BASE_URL", "BOUCLE_CLOCK_OFFSET"])
def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path, empty: str) -> None:
    assert read(tmp_path, {empty: ""}) == read(tmp_path, {})


@pytest.mark.parametrize(("text", "on"), [("1", True), ("true", True), ("ON", True), ("0", False), ("no", False)])
def test_a_switch_is_on_or_off(tmp_path: Path, text: str, on: bool) -> None:
    found = read(tmp_path, {"BOUCLE_ALLOW_PRIVATE_ENDPOINTS": text, "BOUCLE_EMBEDDED_WORKER": text})
    assert found.allow_private_endpoints is found.embedded_worker is on


@pytest.mark.parametrize(("text", "seconds"), [("7862400", 7_862_400.0), ("-3600", -3600.0), ("0.5", 0.5)])
def test_the_clock_is_moved_by_seconds(tmp_path: Path, text: str, seconds: float) -> None:
    assert read(tmp_path, {"BOUCLE_CLOCK_OFFSET": text}).clock_offset == seconds


WRONG = [
    ("PORT", "eight"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "²"),
    ("BOUCLE_ALLOW_PRIVATE_ENDPOINTS", "maybe"),
    ("BOUCLE_EMBEDDED_WORKER", "2"),
    ("BOUCLE_CLOCK_OFFSET", "91 days"),
    ("BOUCLE_CLOCK_OFFSET", "nan"),
    ("BOUCLE_CLOCK_OFFSET", "inf"),
    ("BOUCLE_CLOCK_OFFSET", "1e12"),
    ("BOUCLE_BASE_URL", "nps.example.com"),
    ("BOUCLE_BASE_URL", "ftp://nps.example.com"),
    ("BOUCLE_BASE_URL", "https://nps.example.com/?x=1"),
    ("BOUCLE_BASE_URL", "https://[::1"),
    ("BOUCLE_HEARTBEAT_URL", "monitor.example/ping"),
]


@pytest.mark.parametrize(("name", "text"), WRONG, ids=[f"{name}={text}" for name, text in WRONG])
def test_a_wrong_one_is_named_in_a_sentence(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(Invalid, match=name) as refused:
        read(tmp_path, {name: text})
    assert "\n" not in str(refused.value)


def test_an_address_to_call_is_called_as_it_stands(tmp_path: Path) -> None:
    url = "https://monitor.example/api/push/abc/?status=up&msg=OK"
    assert read(tmp_path, {"BOUCLE_HEARTBEAT_URL": url}).heartbeat_url == url


def test_a_file_that_is_no_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(Invalid, match=r"\.env cannot be read"):
        load({}, path)


def test_what_is_secret_is_not_shown(tmp_path: Path) -> None:
    shown = repr(
        read(
            tmp_path,
            {
                "DATABASE_URL": "postgresql://boucle:hunter2@db/boucle",
                "BOUCLE_SECRET_KEYS": "k1:hunter2",
                "BOUCLE_HEARTBEAT_URL": "https://monitor.example/hunter2",
            },
        )
    )
    assert "hunter2" not in shown
