"""Applying a workspace file: what it names is made so, what it does not name stays, what was edited is not lost."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from core.clock import FixedClock
from core.errors import Invalid
from core.jobs import apply_workspace
from core.jobs.apply_workspace import Drift
from core.jobs.context import Context
from core.storage import schema
from core.storage.settings import campaign_named, mark_campaign, read_campaigns, read_connections, read_workspace
from core.storage.store import Store
from core.touches import TouchState
from core.workspace import Campaign, Workspace
from core.workspace_file import ConnectionSettings, WorkspaceFile
from tests.ledger import add_person, add_touch, add_wave

CRM = ConnectionSettings("crm", "csv", {"path": "/srv/customers.csv"})
MAIL = ConnectionSettings("mail", "mailbox", {"path": "/srv/mail", "sender": "hello@acme.example"})


def campaign(name: str = "relationship", **keys: Any) -> Campaign:
    least = {"name": name, "source": "crm", "sender": "mail", "every_days": 90}
    return Campaign.model_validate({**least, **keys})


def file(*campaigns: Campaign, connections: tuple[ConnectionSettings, ...] = (CRM, MAIL), **keys: Any) -> WorkspaceFile:
    return WorkspaceFile(Workspace.model_validate({"name": "Acme", **keys}), connections, campaigns or (campaign(),))


def reserve(store: Store, name: str = "relationship", anonymous: bool = False) -> int:
    """Somebody chosen by the campaign whose mail has not left; returns the touch."""
    with store.write() as tx:
        row = campaign_named(tx, name)
        (sender,) = [one.id for one in read_connections(tx) if one.name == "mail"]
        person, identity = add_person(tx, 1)
        wave = add_wave(tx, row.id)
        touch = add_touch(tx, person, TouchState.RESERVED, 1, campaign_id=row.id, wave_id=wave, identity_id=identity)
        tx.execute(
            schema.deliveries.insert().values(
                key=f"{touch}:invite", kind="send", connection_id=sender, touch_id=touch, state="ready", due_at=0,
                created_at=0,
            )
        )  # fmt: skip
        return touch


def state_of(store: Store, touch: int) -> str:
    with store.read() as tx:
        return str(tx.scalar(select(schema.touches.c.state).where(schema.touches.c.id == touch)))


def edit_in_interface(store: Store, **config: Any) -> None:
    with store.write() as tx:
        row = campaign_named(tx, "relationship")
        values = row.settings.model_dump(mode="json", by_alias=True, exclude_defaults=True) | config
        tx.execute(update(schema.campaigns).where(schema.campaigns.c.id == row.id).values(config=values))


def test_first_apply_makes_everything_and_says_so(context: Context) -> None:
    assert apply_workspace.run(context, file()) == [
        "+ workspace",
        "+ connection crm (csv)",
        "+ connection mail (mailbox)",
        "+ campaign relationship",
    ]
    with context.store.read() as tx:
        workspace = read_workspace(tx)
        assert workspace is not None
        assert workspace.name == "Acme"
        assert [row.name for row in read_connections(tx)] == ["crm", "mail"]
        assert [row.settings for row in read_campaigns(tx)] == [campaign()]


def test_second_apply_changes_nothing(context: Context, clock: FixedClock) -> None:
    apply_workspace.run(context, file())
    clock.advance(days=1)
    with context.store.read() as tx:
        before = list(tx.execute(select(schema.connections))), list(tx.execute(select(schema.audit)))
    assert apply_workspace.run(context, file()) == []
    with context.store.read() as tx:
        assert (list(tx.execute(select(schema.connections))), list(tx.execute(select(schema.audit)))) == before


def test_each_change_is_told_key_by_key(context: Context) -> None:
    apply_workspace.run(context, file())
    changed = file(
        campaign(daily_limit=200, every_days=60, survey={"brand": "Acme"}, audience={"country": ["FR", "BE"]}),
        live=False,
        test_recipients=["me@acme.example"],
    )
    assert apply_workspace.run(context, changed) == [
        "~ workspace: live unset -> false, test_recipients unset -> [me@acme.example]",
        "~ campaign relationship: audience unset -> { country = [FR, BE] }, daily_limit unset -> 200,"
        " every_days 90 -> 60, survey unset -> { brand = Acme }",
    ]
    assert apply_workspace.run(context, file(campaign(every_days=60))) != []


def test_changed_source_is_read_whole_again_before_anybody_is_asked(context: Context) -> None:
    apply_workspace.run(context, file())
    with context.store.write() as tx:
        tx.execute(update(schema.connections).values(state="ok", full_read_at=5, synced_at=5))
    moved = ConnectionSettings("crm", "csv", {"path": "/srv/new.csv"})
    apply_workspace.run(context, file(connections=(moved, MAIL)))
    with context.store.read() as tx:
        crm, mail = read_connections(tx)
    assert (crm.state, crm.full_read_at) == ("new", None)
    assert (mail.state, mail.full_read_at) == ("ok", 5)


def test_what_the_file_does_not_name_stays(context: Context) -> None:
    apply_workspace.run(context, file(campaign(), campaign("onboarding")))
    assert apply_workspace.run(context, file(connections=())) == []
    with context.store.read() as tx:
        assert [row.state for row in read_campaigns(tx)] == ["active", "active"]
        assert len(read_connections(tx)) == 2


def test_prune_removes_what_the_file_does_not_name_and_returns_what_was_not_sent(context: Context) -> None:
    apply_workspace.run(context, file(campaign(), campaign("onboarding")))
    touch = reserve(context.store, "onboarding")
    assert apply_workspace.run(context, file(), prune=True) == [
        "- campaign onboarding (asks not sent yet and returned: 1)"
    ]
    assert state_of(context.store, touch) == "returned"
    assert apply_workspace.run(context, file(), prune=True) == []
    with context.store.read() as tx:
        assert [(row.name, row.state) for row in read_campaigns(tx)] == [
            ("relationship", "active"),
            ("onboarding", "removed"),
        ]


def test_removed_sender_gives_back_what_it_has_not_sent(context: Context) -> None:
    apply_workspace.run(context, file())
    touch = reserve(context.store)
    post = ConnectionSettings("post", "smtp", {"host": "127.0.0.1"})
    changes = apply_workspace.run(context, file(campaign(sender="post"), connections=(CRM, post)), prune=True)
    assert "- connection mail (asks not sent yet and returned: 1)" in changes
    assert state_of(context.store, touch) == "returned"


def test_removed_campaign_that_is_named_again_goes_on(context: Context) -> None:
    apply_workspace.run(context, file(campaign(), campaign("onboarding")))
    apply_workspace.run(context, file(), prune=True)
    assert apply_workspace.run(context, file(campaign(), campaign("onboarding"))) == ["+ campaign onboarding"]
    with context.store.read() as tx:
        assert campaign_named(tx, "onboarding").state == "active"


def test_stopped_campaign_stays_stopped(context: Context) -> None:
    apply_workspace.run(context, file())
    with context.store.write() as tx:
        mark_campaign(tx, campaign_named(tx, "relationship").id, "stopped", "stopped by hand", 0)
    apply_workspace.run(context, file(campaign(daily_limit=5)))
    with context.store.read() as tx:
        assert campaign_named(tx, "relationship").state == "stopped"


def test_what_was_edited_since_is_listed_and_nothing_is_applied(context: Context) -> None:
    apply_workspace.run(context, file())
    edit_in_interface(context.store, daily_limit=5)
    with pytest.raises(Drift) as raised:
        apply_workspace.run(context, file(name="Other"))
    assert raised.value.lines == ["! campaign relationship: daily_limit is 5, the file says unset"]
    with context.store.read() as tx:
        workspace = read_workspace(tx)
        assert workspace is not None
        assert workspace.name == "Acme"
        assert campaign_named(tx, "relationship").settings.daily_limit == 5


def test_force_overwrites_what_was_edited(context: Context) -> None:
    apply_workspace.run(context, file())
    edit_in_interface(context.store, daily_limit=5)
    assert apply_workspace.run(context, file(), force=True) == ["~ campaign relationship: daily_limit 5 -> unset"]
    assert apply_workspace.run(context, file()) == []


def test_edit_that_the_file_has_taken_over_is_no_drift(context: Context) -> None:
    apply_workspace.run(context, file())
    edit_in_interface(context.store, daily_limit=5)
    assert apply_workspace.run(context, file(campaign(daily_limit=5))) == []
    assert apply_workspace.run(context, file(campaign(daily_limit=6))) == [
        "~ campaign relationship: daily_limit 5 -> 6"
    ]


def test_prune_does_not_remove_in_silence_what_was_edited(context: Context) -> None:
    apply_workspace.run(context, file())
    edit_in_interface(context.store, daily_limit=5)
    with pytest.raises(Drift) as raised:
        apply_workspace.run(context, WorkspaceFile(Workspace(name="Acme"), (CRM, MAIL), ()), prune=True)
    assert raised.value.lines == ["! campaign relationship: is not in the file and would be removed"]
    with context.store.read() as tx:
        assert campaign_named(tx, "relationship").state == "active"


@pytest.mark.parametrize("removed_first", [False, True])
def test_name_of_a_connection_never_passes_to_another_kind(context: Context, removed_first: bool) -> None:
    """Its records would be taken for those of the new source."""
    apply_workspace.run(context, file())
    if removed_first:
        apply_workspace.run(context, WorkspaceFile(Workspace(name="Acme"), (MAIL,), ()), prune=True)
    other = ConnectionSettings("crm", "mailbox", {"path": "/srv/mail"})
    with pytest.raises(Invalid, match="of kind csv and cannot become mailbox"):
        apply_workspace.run(context, file(connections=(other, MAIL)))


@pytest.mark.parametrize("anonymous", [False, True])
def test_promise_of_anonymity_holds_once_somebody_was_asked(context: Context, anonymous: bool) -> None:
    before, after = (campaign(survey={"anonymous": flag}) for flag in (anonymous, not anonymous))
    apply_workspace.run(context, file(before))
    apply_workspace.run(context, file(after))  # nobody has been told anything yet
    apply_workspace.run(context, file(before))
    reserve(context.store)
    with pytest.raises(Invalid, match="give the new one another name"):
        apply_workspace.run(context, file(after))


def test_change_makes_the_plans_anew(context: Context) -> None:
    apply_workspace.run(context, file())
    with context.store.write() as tx:
        add_wave(tx, 1)
        tx.execute(update(schema.waves).values(next_plan_at=2**50))
    apply_workspace.run(context, file())
    with context.store.read() as tx:
        assert tx.scalar(select(schema.waves.c.next_plan_at)) == 2**50
    apply_workspace.run(context, file(campaign(daily_limit=3)))
    with context.store.read() as tx:
        assert tx.scalar(select(schema.waves.c.next_plan_at)) is None


def test_what_was_changed_stands_in_the_audit(context: Context) -> None:
    apply_workspace.run(context, file())
    with context.store.read() as tx:
        row = tx.execute(select(schema.audit)).one()
    assert (row.actor, row.action) == ("cli", "apply_workspace")
    assert "+ campaign relationship" in row.detail["changes"]
