"""Why is somebody asked or not: every clock with its date, every touch, the next date the person is free."""

from __future__ import annotations

from typing import Any

from core.clock import from_ms
from core.errors import NotFound
from core.frequency import CLOCKS, Facts, Limits, Rule, clocks, decide, limits
from core.jobs.context import Context
from core.storage.pacing import share_left
from core.storage.people import find_people
from core.storage.people_facts import TouchRow, load_facts, record_rows, touch_rows
from core.storage.settings import CampaignRow, applied_workspace, read_campaigns, read_connections
from core.storage.store import Transaction
from core.waves import quiet_until
from core.workspace import Campaign, Workspace


def explain(context: Context, address: str) -> dict[str, Any]:
    """The JSON document of `flask why ADDRESS` (DESIGN). Raises NotFound.

    With several people behind one address the first is shown and `others` counts the rest. `free_at` is the present
    moment for who is free, None where no date frees.
    """
    now = context.clock.now_ms()
    with context.store.read() as tx:
        found = find_people(tx, context.pepper, address)
        if not found:
            raise NotFound(f"nobody with the address {address} is known; is the source synced? See `connections list`")
        return {**_person(tx, applied_workspace(tx), found[0], now), "others": len(found) - 1}


def _person(tx: Transaction, workspace: Workspace, person_id: int, now: int) -> dict[str, Any]:
    records = record_rows(tx, person_id)
    rows = [row for row in read_campaigns(tx) if row.state != "removed"]
    entries = _entries(tx, workspace, rows, person_id, records, now)
    blocking = [entry for entry in entries if entry["blocks"]]
    return {
        "person": person_id,
        "identities": [
            {
                "connection": record.connection,
                "external_id": record.external_id,
                "email": record.email,
                "company": record.company,
                "shared": record.shared,
                "opted_out": record.opted_out,
                "gone": record.gone_at is not None,
            }
            for record in records
        ],
        "clocks": [
            {**entry, "last_at": _iso(entry["last_at"]), "free_at": _iso(entry["free_at"])} for entry in entries
        ],
        "campaigns": _decisions(tx, workspace, rows, person_id, records, now),
        "touches": [_touch(row) for row in touch_rows(tx, person_id)],
        "free": not blocking,
        "free_at": _free_at(blocking, now),
    }


def _free_at(blocking: list[dict[str, Any]], now: int) -> str | None:
    if any(entry["free_at"] is None for entry in blocking):
        return None
    return _iso(max((entry["free_at"] for entry in blocking), default=now))


def _entries(
    tx: Transaction, workspace: Workspace, rows: list[CampaignRow], person_id: int, records: list[Any], now: int
) -> list[dict[str, Any]]:
    """Every rule that has something to say on this person, whatever the campaign, and `same_survey` per campaign."""
    identity = _record_asked(tx, None, records)
    general = limits(workspace.quarantine, _ANY_CAMPAIGN, 0)
    facts = load_facts(
        tx, person_id, identity, general, _ANY_CAMPAIGN.who, workspace.zone, now,
        quiet_until(workspace.quiet_periods, workspace.zone, now),
    )  # fmt: skip
    entries = _fixed(facts, now)
    for clock in clocks(facts, general, now):
        entries.append(_entry(clock.rule, clock.last_at, clock.free_at, clock.blocks))
    entries += _company_share(tx, workspace, records, identity, now)
    for row in rows:
        limit = limits(workspace.quarantine, row.settings, row.id)
        for clock in clocks(facts, limit, now):
            if clock.rule == "same_survey":
                entries.append({**_entry(clock.rule, clock.last_at, clock.free_at, clock.blocks), "campaign": row.name})
    order = {rule.value: place for place, rule in enumerate((*CLOCKS, Rule.COMPANY_SHARE))}
    return sorted(entries, key=lambda entry: order.get(entry["rule"], -1))


def _company_share(
    tx: Transaction, workspace: Workspace, records: list[Any], identity_id: int, now: int
) -> list[dict[str, Any]]:
    """The share of the person's company, where nothing of it is left."""
    company = next((record.company_id for record in records if record.id == identity_id), None)
    left, free_at = (1, None) if company is None else share_left(tx, company, workspace.quarantine.company_share, now)
    return [_entry(Rule.COMPANY_SHARE, None, free_at, True)] if left <= 0 else []


def _fixed(facts: Facts, now: int) -> list[dict[str, Any]]:
    held = facts.hold_until if facts.hold_until is not None and facts.hold_until > now else None
    shared = facts.shared_until if facts.shared_until is not None and facts.shared_until > now else None
    rules: dict[str, tuple[bool, int | None]] = {
        "no_address": (not facts.has_address, None),
        "suppressed": (facts.suppressed, None),
        "opted_out": (facts.opted_out, None),
        "shared_mailbox": (shared is not None, shared),
        "incident": (facts.incident, None),
        "hold": (held is not None, held),
        "quiet_period": (facts.quiet_until is not None, facts.quiet_until),
        "open_follow_up": (facts.open_follow_up, None),
    }
    return [_entry(rule, None, until, True) for rule, (holds, until) in rules.items() if holds]


def _entry(rule: str, last_at: int | None, free_at: int | None, blocks: bool) -> dict[str, Any]:
    return {"rule": str(rule), "last_at": last_at, "free_at": free_at, "blocks": blocks}


def _decisions(
    tx: Transaction, workspace: Workspace, rows: list[CampaignRow], person_id: int, records: list[Any], now: int
) -> list[dict[str, Any]]:
    """Per campaign: what it would say of this person now, before its daily limit and hours."""
    decided = []
    connection_ids = {connection.name: connection.id for connection in read_connections(tx)}
    for row in rows:
        sources = [connection_ids[name] for name in row.settings.source if name in connection_ids]
        identity = _record_asked(tx, sources, records)
        if identity is None:
            continue
        limit: Limits = limits(workspace.quarantine, row.settings, row.id)
        facts = load_facts(
            tx, person_id, identity, limit, row.settings.who, workspace.zone, now,
            quiet_until(workspace.quiet_periods, workspace.zone, now),
        )  # fmt: skip
        decision = decide(facts, limit, now)
        rule, until = decision.rule, decision.until
        share = _company_share(tx, workspace, records, identity, now) if decision.allowed else []
        if share:
            rule, until = Rule.COMPANY_SHARE, share[0]["free_at"]
        decided.append({"campaign": row.name, "rule": rule, "until": _iso(until)})
    return decided


def _record_asked(tx: Transaction, sources: list[int] | None, records: list[Any]) -> Any:
    live = [record for record in records if record.gone_at is None] or records
    if sources is None:
        return min(live, key=lambda record: (record.address_hash is None, not record.is_primary, record.id)).id
    mine = [record for record in live if record.connection_id in sources and record.is_primary]
    if not mine:
        return None
    return min(mine, key=lambda record: (record.address_hash is None, sources.index(record.connection_id))).id


def _touch(row: TouchRow) -> dict[str, Any]:
    return {
        "campaign": row.campaign,
        "wave": row.wave,
        "source": row.source,
        "origin": row.origin,
        "state": row.state,
        "reserved_at": _iso(row.reserved_at),
        "handed_over_at": _iso(row.handed_over_at),
        "asked_at": _iso(row.asked_at),
        "answered_at": _iso(row.answered_at),
        "declined_at": _iso(row.declined_at),
        "returned_at": _iso(row.returned_at),
        "reason": row.reason,
        "detail": row.detail,
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat().replace("+00:00", "Z")


#: A campaign that stands for none in particular: its own clock never starts.
_ANY_CAMPAIGN = Campaign(name="any", source=("any",), sender="any", every_days=1)
