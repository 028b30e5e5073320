"""What a survey page needs to know of the link it was opened by, in one snapshot; and the opt-out it may bring."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, null, select

from core.clock import DAY_MS
from core.storage.inbox import remember_opt_out
from core.storage.people import opt_out
from core.storage.schema import campaigns, identities, touches
from core.storage.settings import campaign_with_id, read_workspace
from core.storage.touches import LinkedTouch, touch_for_link
from core.workspace import Campaign, Workspace

#: A link is good for late answers this long after its window has closed; then it has expired.
LINK_DAYS = 180


@dataclass(frozen=True, slots=True)
class SurveyLink:
    """A link of ours and what it belongs to. `language` is what the source says of the person asked."""

    touch: LinkedTouch
    campaign: Campaign
    workspace: Workspace
    language: str | None

    def has_expired(self, now: int) -> bool:
        """Whether even a late answer is too late."""
        closes_at = self.touch.window_closes_at
        return closes_at is not None and now >= closes_at + LINK_DAYS * DAY_MS


def read_link(tx: Connection, token: str) -> SurveyLink | None:
    """What a token belongs to, or None if it is none of ours."""
    touch = touch_for_link(tx, token)
    workspace = read_workspace(tx)
    if touch is None or workspace is None:
        return None
    language = tx.scalar(select(identities.c.language).where(identities.c.id == touch.identity_id))
    return SurveyLink(touch, campaign_with_id(tx, touch.campaign_id).settings, workspace, language)


def logo_of(tx: Connection, campaign: str) -> str:
    """The path of a campaign's logo, or nothing."""
    row = tx.execute(select(campaigns.c.config).where(campaigns.c.name == campaign)).first()
    return "" if row is None else str((row.config.get("survey") or {}).get("logo") or "")


def opt_out_by_link(tx: Connection, touch_id: int, by: str, now: int) -> None:
    """Whoever was asked by this touch is never asked again, with everybody else who reads that mailbox.

    Of somebody who was deleted meanwhile the address keeps it, for the day they come back.
    """
    row = tx.execute(
        select(touches.c.person_id, touches.c.address_hash).where(touches.c.id == touch_id)
    ).one()  # fmt: skip
    behind = select(identities.c.person_id).where(
        identities.c.address_hash == row.address_hash, identities.c.gone_at.is_(null())
    )
    people = set(tx.scalars(behind)) if row.address_hash is not None else set()
    if row.person_id is not None:
        people.add(row.person_id)
    for person_id in sorted(people):
        opt_out(tx, person_id, by, now)
    if not people and row.address_hash is not None:
        remember_opt_out(tx, row.address_hash, now)
