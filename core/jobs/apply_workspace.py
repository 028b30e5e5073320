"""Apply a workspace file: one transaction that makes what it names so, and says what that changed.

Objects the file does not name stay, unless `prune`. Settings that were edited in the interface since the last apply are
drift: nothing is applied and they are listed, unless `force` overwrites them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import BoucleError, Invalid
from core.jobs.context import Context
from core.storage import audit, settings, touches, waves
from core.storage.applied import (
    Applied,
    applied_campaigns,
    applied_connections,
    applied_workspace,
    give_back_unsent,
    has_asked,
    put_campaign,
    put_connection,
    put_workspace,
)
from core.storage.store import Transaction
from core.workspace import Campaign
from core.workspace_file import ConnectionSettings, WorkspaceFile, stored

NAME = "apply_workspace"
ABSENT = "unset"


class Drift(BoucleError):
    """Something was edited in the interface since the last apply; `lines` list it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(
            "nothing was applied: these were edited in the interface since the last apply. Export them with"
            " `flask export`, or overwrite them with --force"
        )
        self.lines = lines


@dataclass(slots=True)
class Applying:
    """What is being changed, line by line."""

    now: int
    prune: bool
    changes: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)


def run(context: Context, file: WorkspaceFile, *, force: bool = False, prune: bool = False) -> list[str]:
    """Apply a file; returns a line per change, none if there was nothing to change. Raises Drift, Invalid."""
    with context.store.reservation() as tx:  # what prune removes must not be reserved for meanwhile
        doing = Applying(context.clock.now_ms(), prune)
        _workspace(tx, doing, stored(file.workspace))
        _connections(tx, doing, file)
        _campaigns(tx, doing, file)
        if doing.drift and not force:
            raise Drift(doing.drift)
        if doing.changes:
            waves.replan(tx)
            audit.note(tx, "cli", NAME, "workspace", {"changes": doing.changes}, doing.now)
    return doing.changes


def _workspace(tx: Transaction, doing: Applying, config: dict[str, Any]) -> None:
    old = applied_workspace(tx)
    _compare(doing, "workspace", old, config)
    put_workspace(tx, config, doing.now)


def _connections(tx: Transaction, doing: Applying, file: WorkspaceFile) -> None:
    known = applied_connections(tx)
    for wanted in file.connections:
        old = known.get(wanted.name)
        _compare(doing, f"connection {wanted.name}", old, wanted.config, note=_kind(old, wanted))
        put_connection(tx, old, wanted.name, wanted.kind, wanted.config, doing.now)
    named = {wanted.name for wanted in file.connections}
    for name, row in known.items():
        if doing.prune and name not in named and row.state != "removed":
            _note_drift_of_absent(doing, f"connection {name}", row)
            returned = give_back_unsent(tx, row.id, doing.now)
            settings.mark_connection(tx, row.id, "removed", "not in the workspace file", doing.now)
            doing.changes.append(f"- connection {name}{_returned(returned)}")


def _kind(old: Applied | None, wanted: ConnectionSettings) -> str:
    if old is not None and old.kind != wanted.kind:  # its records would be taken for those of the new source
        was = "was" if old.state == "removed" else "is"
        raise Invalid(
            f"the connection {wanted.name} {was} of kind {old.kind} and cannot become {wanted.kind}; give the new one"
            " another name"
        )
    return f" ({wanted.kind})"


def _campaigns(tx: Transaction, doing: Applying, file: WorkspaceFile) -> None:
    known = applied_campaigns(tx)
    for campaign in file.campaigns:
        config = stored(campaign)
        old = known.get(campaign.name)
        _keep_promise(tx, old, campaign)
        _compare(doing, f"campaign {campaign.name}", old, config)
        put_campaign(tx, old, config, doing.now)
    named = {campaign.name for campaign in file.campaigns}
    for name, row in known.items():
        if doing.prune and name not in named and row.state != "removed":
            _note_drift_of_absent(doing, f"campaign {name}", row)
            returned = touches.cancel_for_campaign(tx, row.id, doing.now, "the campaign was removed")
            waves.close_waves(tx, row.id)
            settings.mark_campaign(tx, row.id, "removed", "not in the workspace file", doing.now)
            doing.changes.append(f"- campaign {name}{_returned(returned)}")


def _keep_promise(tx: Transaction, old: Applied | None, campaign: Campaign) -> None:
    """A link that was sent as anonymous must not record its answer under a name, nor the other way round."""
    anonymous = campaign.survey.anonymous
    if old is None or bool(old.config.get("survey", {}).get("anonymous", False)) == anonymous:
        return
    if has_asked(tx, old.id):
        before, after = ("identified", "anonymous") if anonymous else ("anonymous", "identified")
        raise Invalid(
            f"the campaign {campaign.name} has asked people under the promise that its survey is {before} and cannot"
            f" become {after}; give the new one another name"
        )


def _note_drift_of_absent(doing: Applying, what: str, row: Applied) -> None:
    if row.drifted:
        doing.drift.append(f"! {what}: is not in the file and would be removed")


def _returned(touches_returned: int) -> str:
    return f" (asks not sent yet and returned: {touches_returned})" if touches_returned else ""


def _compare(doing: Applying, what: str, old: Applied | None, config: dict[str, Any], note: str = "") -> None:
    if old is None or old.state == "removed":
        doing.changes.append(f"+ {what}{note}")
        return
    differences = list(_differences(old.config, config))
    if old.drifted and differences:
        doing.drift += [f"! {what}: {key} is {now}, the file says {then}" for key, now, then in differences]
    if differences:
        changed = ", ".join(f"{key} {before} -> {after}" for key, before, after in differences)
        doing.changes.append(f"~ {what}: {changed}")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, before, after) of what differs, tables key by key."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        else:
            yield prefix + key, _shown(before), _shown(after)


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + " }"
    return str(value)
