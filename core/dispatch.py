"""May this message leave now? Looked at again in the transaction that claims it: an opt-out always wins. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.deliveries import is_reminder
from core.touches import ReturnReason, TouchState
from core.waves import quiet_until, zone_now
from core.workspace import Campaign, Workspace
from core.zones import zone_of

#: An invitation may leave while its quota is taken: `unknown` when the vendor has said it never had the message.
INVITABLE = (TouchState.RESERVED, TouchState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Message:
    """One message that wants to leave, and everything that bears on it, as it is now. Moments are milliseconds."""

    delivery_id: int
    key: str
    fence: int
    attempts: int
    payload: Mapping[str, Any]
    expires_at: int | None
    created_at: int
    touch_id: int
    touch_state: TouchState
    answered: bool
    asked_address: bytes | None
    asked_at: int
    window_closes_at: int | None
    person_id: int | None
    campaign_id: int
    campaign: str
    campaign_state: str
    identity_id: int | None
    external_id: str | None
    email: str | None
    address_hash: bytes | None
    shared: bool
    first_name: str | None
    last_name: str | None
    company: str | None
    language: str | None
    time_zone: str | None
    gone: bool
    opted_out: bool
    hold_until: int | None
    suppressed: bool
    incident: bool
    trial: bool = False  # to a test recipient, while the workspace is not live: counts for nobody

    @property
    def is_reminder(self) -> bool:
        """A reminder belongs to its touch: what becomes of it never moves the touch."""
        return is_reminder(self.key)

    @property
    def kind(self) -> str:
        """`invite` or `reminder`."""
        return "reminder" if self.is_reminder else "invite"

    @property
    def guarded_at(self) -> int | None:
        """When an earlier attempt of this very message took the 24 h floor."""
        at = self.payload.get("guarded_at")
        return None if at is None else int(at)


@dataclass(frozen=True, slots=True)
class Leave:
    """Now. `local_date` is the recipient's calendar day."""

    local_date: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not before `until`; None: as soon as what stops it is lifted (a paused campaign)."""

    until: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Never:
    """Not at all. `reason`: the quota is returned for it; None: the touch stays as it is."""

    reason: ReturnReason | None
    why: str


def may_leave(message: Message, campaign: Campaign, workspace: Workspace, now: int) -> Leave | Wait | Never:
    """Every rule that may have changed since the message was decided on. The claim itself takes the 24 h floor."""
    if message.trial:
        return _may_leave_as_trial(message, workspace, now)
    refused = _outlived(message, now) or _unwanted(message, workspace, now)
    if refused is not None:
        # a reminder's outcome never moves its touch
        return Never(None, refused.why) if message.is_reminder else refused
    if message.campaign_state != "active":
        return Wait(None, f"the campaign is {message.campaign_state}")
    quiet = quiet_until(workspace.quiet_periods, workspace.zone, now)
    if quiet is not None:
        return Wait(quiet, "quiet period")
    moment = zone_now(zone_of(message.time_zone, workspace.zone), campaign.send_window, now)
    if moment.opens_at is not None:
        return Wait(moment.opens_at, "outside the send window")
    return Leave(moment.local_date)


def _outlived(message: Message, now: int) -> Never | None:
    if message.is_reminder:
        if message.answered or message.touch_state is not TouchState.HANDED_OVER:
            return Never(None, f"the invitation is {'answered' if message.answered else message.touch_state.value}")
        if message.window_closes_at is not None and message.window_closes_at <= now:
            return Never(None, "the survey window has closed")
    elif message.touch_state not in INVITABLE:
        return Never(None, f"the invitation is {message.touch_state.value}")
    if message.expires_at is not None and message.expires_at <= now:
        return Never(ReturnReason.EXPIRED, "not handed over in time")
    return None


def _unwanted(message: Message, workspace: Workspace, now: int) -> Never | None:
    cancelled = ReturnReason.CANCELLED
    if message.campaign_state in ("stopped", "removed"):
        return Never(cancelled, "the campaign was stopped")
    if message.gone:
        return Never(cancelled, "the record is gone")
    if not message.email:
        return Never(cancelled, "the record has no address any more")
    if message.address_hash != message.asked_address:
        return Never(cancelled, "the address changed")
    if message.suppressed:
        return Never(ReturnReason.SUPPRESSED, "the address is on the suppression list")
    if message.opted_out:
        return Never(cancelled, "opted out")
    if message.incident:
        return Never(cancelled, "an incident is open")
    if message.hold_until is not None and message.hold_until > now:
        return Never(cancelled, "on hold")
    if not workspace.live:
        return Never(cancelled, "the workspace is not live")
    return None


def _may_leave_as_trial(message: Message, workspace: Workspace, now: int) -> Leave | Wait | Never:
    """At once and whatever the hour, but only while the workspace is not live and names the recipient."""
    cancelled = ReturnReason.CANCELLED
    refused = _outlived(message, now)
    if refused is not None:
        return refused
    if message.campaign_state in ("stopped", "removed"):
        return Never(cancelled, "the campaign was stopped")
    if workspace.live:
        return Never(cancelled, "the workspace is live by now")
    if (message.email or "").casefold() not in {to.casefold() for to in workspace.test_recipients}:
        return Never(cancelled, "this is no test recipient any more")
    if message.campaign_state != "active":
        return Wait(None, f"the campaign is {message.campaign_state}")
    return Leave(zone_now(workspace.zone, None, now).local_date)


def retry_at(attempts: int, retry_after: float | None, now: int) -> int:
    """When to try a message again after `attempts` tries: 5 minutes, 15 minutes, 1 h, then every 4 h."""
    if retry_after is not None:
        return now + max(1_000, round(retry_after * 1000))
    return now + BACKOFF_MS[min(max(attempts, 1), len(BACKOFF_MS)) - 1]


BACKOFF_MS = (5 * 60_000, 15 * 60_000, 60 * 60_000, 4 * 60 * 60_000)
GIVE_UP_MS = 48 * 60 * 60_000
