"""What `flask export` prints is a workspace file that changes nothing when it is applied."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from core.clock import Clock
from core.errors import NotFound
from core.jobs import apply_workspace
from core.jobs.context import Context
from core.storage import schema
from core.storage.store import Store
from core.workspace_file import Surroundings, WorkspaceFile, parse_workspace_file, stored
from tests.world import make_context
from web.export import export_workspace, toml_value
from web.wiring import Catalogue

FULL = """\
[workspace]
name = "Acme \\"Nord\\" \\\\ Ω"
languages = ["fr", "en"]
time_zone = "Europe/Paris"
live = false
test_recipients = ["me@acme.example"]
retention_days = { inbox = 7, hits = 3 }

[quarantine]
any_survey_days = 20
company_share = 0.5

[brakes]
bounce_share = 0.0
refusals = 0

[[quiet_periods]]
name = "price rise"
from = 2026-12-20
to = 2027-01-04

[[quiet_periods]]
name = "launch"
from = 2027-03-01
to = 2027-03-02

[connections.crm]
kind = "csv"
config = { path = "customers.csv", fields = { email = "Courriel", "plan d'offre" = "Offre" } }

[connections.mail]
kind = "smtp"
config = { host = "smtp.acme.example", username = "boucle", password = "env:SMTP_PASSWORD", sender = "a@acme.example" }

[connections.post]
kind = "smtp"
config = { host = "127.0.0.1", username = "b", password = "file:secrets/smtp", sender = "b@acme.example", per_second = 2.5 }

[campaigns.relationship]
source = ["crm"]
sender = "mail"
write_back = ["crm"]
every_days = 90
start = 2026-12-01
end = 2027-12-01
purpose = "To learn\\twhat to change."
priority = -2
audience = { country = ["FR", "BE"], seats = { min = 5, max = 100.5 }, since = { before = 2026-01-01 }, vip = true, "a b" = { not = ["x"] } }
daily_limit = 200
send_window = { from = "09:00", to = "24:00", days = "mon-fri" }
reminder_days = 6
window_days = 30
blocked = "skip"
survey = { brand = "Acme", colour = "#112233", progress = false, reply_to = "help@acme.example" }

[campaigns.once]
source = "crm"
sender = "post"
once = 2026-12-24
survey = { anonymous = true }
"""  # noqa: E501


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    store = Store(f"sqlite:///{tmp_path / 'boucle.db'}", Clock())
    schema.metadata.create_all(store.engine)
    yield make_context(store, store.clock)
    store.close()


def read(text: str, folder: Path) -> WorkspaceFile:
    return parse_workspace_file(text, "workspace.toml", folder, Surroundings(Catalogue()))


def exported(context: Context) -> str:
    with context.store.read() as tx:
        return export_workspace(tx)


def test_export_applied_elsewhere_is_the_same_workspace(context: Context, tmp_path: Path) -> None:
    first = read(FULL, tmp_path)
    apply_workspace.run(context, first)
    text = exported(context)
    again = read(text, Path("/elsewhere"))  # paths are absolute: the folder does not matter
    assert again.connections == first.connections
    assert stored(again.workspace) == stored(first.workspace)
    assert [stored(one) for one in again.campaigns] == [stored(one) for one in first.campaigns]
    assert apply_workspace.run(context, again) == []
    assert exported(context) == text


def test_secrets_leave_as_references(context: Context, tmp_path: Path) -> None:
    apply_workspace.run(context, read(FULL, tmp_path))
    text = exported(context)
    assert 'password = "env:SMTP_PASSWORD"' in text
    assert f'password = "file:{tmp_path}/secrets/smtp"' in text


def test_secret_that_was_stored_in_clear_does_not_leave(context: Context, tmp_path: Path) -> None:
    apply_workspace.run(context, read(FULL, tmp_path))
    with context.store.write() as tx:
        config = {"host": "127.0.0.1", "username": "b", "password": "hunter2", "sender": "b@acme.example"}
        tx.execute(update(schema.connections).where(schema.connections.c.name == "post").values(config=config))
    assert "hunter2" not in exported(context)


def test_what_was_removed_is_not_exported(context: Context, tmp_path: Path) -> None:
    apply_workspace.run(context, read(FULL, tmp_path))
    without = FULL[: FULL.index("[campaigns.once]")].replace("[connections.post]", "[connections.letter]")
    apply_workspace.run(context, read(without, tmp_path), prune=True)
    text = exported(context)
    assert "[campaigns.once]" not in text
    assert "[connections.post]" not in text
    assert "[connections.letter]" in text


def test_export_before_the_first_apply_says_what_to_do(context: Context) -> None:
    with pytest.raises(NotFound, match="apply a workspace file first"):
        exported(context)


VALUES: Any = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"]))
    | st.dates(),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), inside, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_is_read_back_as_it_was_written(value: Any) -> None:
    assert tomllib.loads(f"value = {toml_value(value)}")["value"] == value


def test_times_are_written_as_the_file_takes_them() -> None:
    assert toml_value({"from": time(9, 5), "day": date(2026, 12, 1), "none": None}) == (
        '{ from = "09:05", day = 2026-12-01 }'
    )
    assert math.isclose(tomllib.loads(f"x = {toml_value(1e22)}")["x"], 1e22)
