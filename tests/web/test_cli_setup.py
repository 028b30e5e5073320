"""Setting up by command: migrate, apply, export, sample; and every way in which that may be impossible."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import update

from core.storage import schema
from tests.web.app import KEY, WORKSPACE, Installation, Said
from web.wiring import prepare_database

OTHER_KEY = "k2:" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def empty(site: Installation) -> Installation:
    """Migrated, and nothing applied."""
    prepare_database(site.settings)
    return site


def refused(said: Said, *parts: str, code: int = 1) -> None:
    """It failed, in sentences on stderr, and printed no result and no stack trace."""
    assert said.code == code, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "should not" not in said.err
    for part in parts:
        assert part in said.err


# --- migrate --------------------------------------------------------------------------------------------------------


def test_migrate_says_what_it_did_and_may_be_repeated(site: Installation) -> None:
    first = site.flask("migrate")
    assert (first.code, first.out) == (0, "")
    assert "the database is now at" in first.err
    second = site.flask("migrate")
    assert second.code == 0
    assert "up to date" in second.err


def test_migrate_makes_a_folder_that_is_its_owners_alone(site: Installation) -> None:
    site.flask("migrate")
    assert stat.S_IMODE((site.folder / "instance").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "command",
    [["status", "--json"], ["tick"], ["preview", "relationship"], ["connections", "list"], ["export"]],
    ids=lambda words: words[0],
)
def test_database_that_is_not_migrated_is_told_in_a_sentence(site: Installation, command: list[str]) -> None:
    refused(site.flask(*command), "the database is not up to date; run: flask migrate")


def test_database_of_a_later_release_is_not_touched(empty: Installation) -> None:
    with empty.context() as context, context.store.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    refused(empty.flask("migrate"), "9999", "belongs to a later one")


# --- what may be missing --------------------------------------------------------------------------------------------


def test_lost_keys_are_named_and_nothing_starts(empty: Installation) -> None:
    lost = Installation(empty.folder, {"BOUCLE_SECRET_KEYS": OTHER_KEY})
    for command in (["status"], ["tick"], ["migrate"]):
        refused(lost.flask(*command), "k1")


def test_another_key_under_the_same_id_is_noticed(empty: Installation) -> None:
    other = Installation(empty.folder, {"BOUCLE_SECRET_KEYS": OTHER_KEY.replace("k2", "k1")})
    refused(other.flask("status"), "k1", "cannot be decrypted")


def test_new_key_in_front_of_the_old_one_is_fine(empty: Installation) -> None:
    rotated = Installation(empty.folder, {"BOUCLE_SECRET_KEYS": f"{OTHER_KEY},{KEY}"})
    assert rotated.flask("status", "--json").code == 0


@pytest.mark.parametrize("keys", ["k1", "k1:x", "k1:QUJD", "no id:QUJD"])
def test_keys_that_cannot_be_keys_are_refused(site: Installation, keys: str) -> None:
    said = Installation(site.folder, {"BOUCLE_SECRET_KEYS": keys}).flask("migrate")
    refused(said, "key")
    assert "QUJD" not in said.err


def test_missing_key_file_is_told_with_its_place(site: Installation) -> None:
    without = Installation(site.folder, {"BOUCLE_SECRET_KEYS": ""})
    refused(without.flask("migrate"), str(site.folder / "instance" / "secret_keys"), "BOUCLE_SECRET_KEYS")


def test_key_file_that_others_may_read_is_refused(site: Installation) -> None:
    (site.folder / "instance").mkdir()
    keys = site.folder / "instance" / "secret_keys"
    keys.write_text(KEY)
    keys.chmod(0o644)
    refused(Installation(site.folder, {"BOUCLE_SECRET_KEYS": ""}).flask("migrate"), f"chmod 600 {keys}")


def test_folder_that_cannot_be_made_is_told(site: Installation) -> None:
    (site.folder / "file").write_text("")
    said = Installation(site.folder, {"BOUCLE_INSTANCE": str(site.folder / "file" / "instance")}).flask("migrate")
    refused(said, "BOUCLE_INSTANCE")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_locked_down_is_told(site: Installation) -> None:
    locked = site.folder / "locked"
    locked.mkdir(mode=0o500)
    refused(Installation(site.folder, {"BOUCLE_INSTANCE": str(locked)}).flask("migrate"), "cannot be opened")


def test_database_file_that_is_none_is_told(site: Installation) -> None:
    (site.folder / "instance").mkdir()
    (site.folder / "instance" / "boucle.db").write_bytes(
        b"this is no database, and long enough to be seen as none" * 99
    )
    refused(site.flask("status"), "DATABASE_URL")


@pytest.mark.parametrize("url", ["nonsense", "mysql://x:hunter2@h/db", "sqlite:////nowhere/at/all.db"])
def test_database_address_that_cannot_work_is_told_without_its_password(site: Installation, url: str) -> None:
    said = Installation(site.folder, {"DATABASE_URL": url}).flask("status")
    refused(said, "DATABASE_URL")
    assert "hunter2" not in said.err


def test_what_the_database_says_while_it_is_used_is_told_in_a_sentence(empty: Installation) -> None:
    """A full disk, a file that belongs to somebody else, a damaged one."""
    with empty.context() as context, context.store.write() as tx:
        tx.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON connections BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    said = empty.flask("apply", str(empty.write()))
    refused(said, "the database could not do it: disk full", "DATABASE_URL")
    assert "INSERT" not in said.err


# --- apply ----------------------------------------------------------------------------------------------------------


def test_apply_prints_what_changed_and_then_that_nothing_did(empty: Installation) -> None:
    path = str(empty.write())
    first = empty.flask("apply", path)
    assert first.code == 0
    assert first.lines == [
        "+ workspace",
        "+ connection crm (csv)",
        "+ connection mail (mailbox)",
        "+ campaign relationship",
    ]
    second = empty.flask("apply", path)
    assert (second.code, second.out) == (0, "")
    assert "nothing to change" in second.err


def test_wrong_file_is_refused_whole_with_every_error(empty: Installation) -> None:
    path = empty.write(
        WORKSPACE.replace('name = "Acme"', 'nam = "Acme"')
        .replace('path = "customers.csv"', 'pth = "customers.csv"')
        .replace('write_back = ["crm"]', 'write_back = ["mail"]')
    )
    said = empty.flask("apply", str(path))
    refused(said, code=1)
    told = [line.removeprefix("boucle: ") for line in said.err.splitlines()]
    assert [line.split(": ")[0] for line in told] == [
        "workspace.toml:1 workspace.name",
        "workspace.toml:2 workspace.nam",
        "workspace.toml:6 connections.crm.config.path",
        "workspace.toml:6 connections.crm.config.pth",
        "workspace.toml:15 campaigns.relationship.write_back[0]",
    ]
    assert empty.flask("connections", "list", "--json").document == []


SMTP = """
[connections.post]
kind = "smtp"
config = { host = "127.0.0.1", sender = "a@acme.example", username = "boucle", %s }
"""


@pytest.mark.parametrize("secret", ["env:SMTP_PASSWORD", "file:secrets/smtp"])
def test_secret_is_referred_to(empty: Installation, secret: str) -> None:
    path = empty.write(WORKSPACE + SMTP % f'password = "{secret}"')
    assert empty.flask("apply", str(path)).code == 0


@pytest.mark.parametrize("secret", ["hunter2", "env:", "file:  ", "environment:X"])
def test_secret_that_is_written_out_is_refused_and_not_repeated(empty: Installation, secret: str) -> None:
    path = empty.write(WORKSPACE + SMTP % f'password = "{secret}"')
    said = empty.flask("apply", str(path))
    refused(said, "connections.post.config.password", "env:NAME or file:PATH")
    assert "hunter2" not in said.err


@pytest.mark.parametrize(
    ("config", "path", "sentence"),
    [
        ("port = 70000", "port", "65535"),
        ('security = "ssl"', "security", "must be one of"),
        ('pasword = "env:X"', "pasword", "did you mean password?"),
        ("per_second = 0", "per_second", "greater than 0"),
        ("port = true", "port", "it is no switch"),
    ],
)
def test_wrong_setting_of_a_connection_is_told_at_its_key(
    empty: Installation, config: str, path: str, sentence: str
) -> None:
    said = empty.flask("apply", str(empty.write(WORKSPACE + SMTP % f'password = "env:X", {config}')))
    refused(said, f"connections.post.config.{path}: ", sentence)


def test_file_that_cannot_be_read_is_told(empty: Installation) -> None:
    refused(empty.flask("apply", str(empty.folder / "absent.toml")), "absent.toml", "No such file")


def test_file_that_is_not_named_is_wrong_use(empty: Installation) -> None:
    refused(empty.flask("apply"), "Missing argument", code=2)
    refused(empty.flask("apply", "workspace.toml", "--prun"), "No such option", code=2)
    refused(empty.flask("aply", "workspace.toml"), "No such command", code=2)


def edit(site: Installation) -> None:
    with site.context() as context, context.store.write() as tx:
        config = {"name": "relationship", "source": ["crm"], "sender": "mail", "every_days": 30}
        tx.execute(update(schema.campaigns).values(config=config))


def test_drift_is_listed_and_ends_with_1_until_it_is_forced(site: Installation) -> None:
    site.set_up()
    edit(site)
    path = str(site.folder / "workspace.toml")
    said = site.flask("apply", path)
    assert said.code == 1
    assert said.lines == [
        "! campaign relationship: every_days is 30, the file says 90",
        "! campaign relationship: write_back is unset, the file says [crm]",
    ]
    assert "--force" in said.err
    forced = site.flask("apply", path, "--force")
    assert forced.code == 0
    assert forced.lines == ["~ campaign relationship: every_days 30 -> 90, write_back unset -> [crm]"]


def test_prune_removes_what_the_file_does_not_name(site: Installation) -> None:
    site.set_up(WORKSPACE + WORKSPACE[WORKSPACE.index("[campaigns.relationship]") :].replace("relationship", "other"))
    path = str(site.write())
    assert site.flask("apply", path).out == ""
    assert site.flask("apply", path, "--prune").lines == ["- campaign other"]
    assert [one["name"] for one in site.flask("campaigns", "list", "--json").document] == ["relationship"]


def test_moved_clock_is_refused_with_what_reaches_beyond_this_machine(site: Installation) -> None:
    site.set_up()
    outside = WORKSPACE.replace('kind = "mailbox"', 'kind = "smtp"').replace(
        'path = "mailbox",', 'host = "192.0.2.25", security = "none",'
    )
    outside = outside.replace("connections.mail", "connections.post").replace('sender = "mail"', 'sender = "post"')
    refused(site.moved(91).flask("apply", str(site.write(outside))), "BOUCLE_CLOCK_OFFSET")
    assert site.flask("apply", str(site.write(outside))).code == 0
    for command in (["tick"], ["status", "--json"]):
        refused(site.moved(91).flask(*command), "BOUCLE_CLOCK_OFFSET", "post")


# --- export and sample ----------------------------------------------------------------------------------------------


def test_export_is_applied_without_a_change(site: Installation) -> None:
    site.set_up()
    said = site.flask("export")
    assert (said.code, said.err) == (0, "")
    (site.folder / "exported.toml").write_text(said.out, encoding="utf-8")
    again = site.flask("apply", str(site.folder / "exported.toml"), "--prune")
    assert (again.code, again.out) == (0, "")


def test_export_before_the_first_apply_is_told(empty: Installation) -> None:
    refused(empty.flask("export"), "apply a workspace file first")


def test_sample_is_written_once_and_applies(empty: Installation) -> None:
    folder = empty.folder / "sample"
    said = empty.flask("sample", "--into", str(folder))
    assert (said.code, said.out) == (0, "")
    assert "wrote 2 files" in said.err
    assert "has the sample already" in empty.flask("sample", "--into", str(folder)).err
    assert empty.flask("apply", str(folder / "workspace.toml")).code == 0


def test_sample_into_a_place_that_cannot_be_is_told(empty: Installation) -> None:
    (empty.folder / "file").write_text("")
    refused(empty.flask("sample", "--into", str(empty.folder / "file" / "sample")), "file")
    refused(empty.flask("sample"), "--into", code=2)
