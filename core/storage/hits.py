"""What was fetched of each survey link, for the verdict on its answers. Kept `retention_days.hits`.

A hit is keyed by H("hit", token), which joins neither the touch nor the answer, and the score it asked for is blinded
with the token: two hits of one link can be compared, and nobody who reads the table learns a score. Of links of
anonymous campaigns the network is blinded too, and of the browser's name only stays whether it is a machine's: a
company has its own network. So an anonymous answer cannot be guessed from the only link that was opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, delete, insert, select

from core.answers import Signal, is_bot_agent
from core.ids import token_hash
from core.storage.schema import campaigns, hits, survey_links, touches

#: Two different scores fetched within this time: a machine that follows every link.
BURST_MS = 60_000
#: Hits older than this belong to an earlier visit: a page can be posted for so long, so a machine that posts has
#: fetched within it, and a person who answers long after a scanner came by is not suspected for it.
VISIT_MS = 30 * 60_000
#: An answer this soon after the message left is hardly a person's.
SOON_MS = 10_000
AGENT_LENGTH = 300
FETCHES = ("GET", "HEAD")


def note_hit(
    tx: Connection,
    token: str,
    *,
    method: str,
    score: int | None = None,
    honeypot: bool = False,
    agent: str = "",
    network: str = "",
    now: int,
) -> None:
    """Write down that a link was fetched or posted to. `network` is a truncated address (/24, /48).

    `honeypot`: a link or field nobody can see was used. `score`: the one the address preselects.
    """
    if _is_anonymous(tx, token):
        agent = "bot" if is_bot_agent(agent) else ""
        network = f"{_blinded(token, network):04x}" if network else ""
    tx.execute(
        insert(hits).values(
            link_hash=token_hash("hit", token),
            at=now,
            method=method.upper()[:10],
            score=None if score is None else _blinded(token, score),
            honeypot=honeypot,
            agent=agent[:AGENT_LENGTH],
            network=network,
        )
    )


def _is_anonymous(tx: Connection, token: str) -> bool:
    return bool(
        tx.scalar(
            select(campaigns.c.anonymous)
            .join(touches, touches.c.campaign_id == campaigns.c.id)
            .join(survey_links, survey_links.c.touch_id == touches.c.id)
            .where(survey_links.c.token_hash == token_hash("touch", token))
        )
    )


def signals_for(tx: Connection, token: str, touch_asked_at: int, now: int) -> tuple[Signal, ...]:
    """What the hits of this link say about an answer that comes now, the strong signals first.

    A POST that was noted before this call takes part: its network is compared with those that fetched the page.
    """
    visit = _visit(tx, token, now - VISIT_MS)
    fetched = [hit for hit in visit if hit.method in FETCHES]
    noticed = {
        Signal.HONEYPOT: any(hit.honeypot for hit in visit),
        Signal.SEVERAL_SCORES: _several_scores(fetched),
        Signal.HEAD_BEFORE_GET: bool(fetched) and fetched[0].method == "HEAD",
        Signal.SOON_AFTER_SEND: 0 <= now - touch_asked_at < SOON_MS,
        Signal.BOT_AGENT: any(is_bot_agent(hit.agent) for hit in visit),
        Signal.OTHER_NETWORK: _other_network(visit, fetched),
    }
    return tuple(signal for signal, speaks in noticed.items() if speaks)


def forget(tx: Connection, before: int, limit: int) -> int:
    """Drop at most `limit` hits older than `before`; returns how many."""
    old = select(hits.c.id).where(hits.c.at < before).order_by(hits.c.at).limit(limit)
    return tx.execute(delete(hits).where(hits.c.id.in_(old))).rowcount


@dataclass(frozen=True, slots=True)
class _Hit:
    at: int
    method: str
    score: int | None
    honeypot: bool
    agent: str
    network: str


def _visit(tx: Connection, token: str, since: int) -> list[_Hit]:
    rows = tx.execute(
        select(hits.c.at, hits.c.method, hits.c.score, hits.c.honeypot, hits.c.agent, hits.c.network)
        .where(hits.c.link_hash == token_hash("hit", token), hits.c.at >= since)
        .order_by(hits.c.at, hits.c.id)
    )
    return [_Hit(*row) for row in rows]


def _several_scores(fetched: Sequence[_Hit]) -> bool:
    """Whether two different scores lie within the burst: if so, two neighbours of the scored hits do."""
    scored = [hit for hit in fetched if hit.score is not None]
    return any(one.score != other.score and other.at - one.at <= BURST_MS for one, other in pairwise(scored))


def _other_network(visit: Sequence[_Hit], fetched: Sequence[_Hit]) -> bool:
    posted = [hit.network for hit in visit if hit.method == "POST" and hit.network]
    seen = {hit.network for hit in fetched if hit.network}
    return bool(posted and seen) and posted[-1] not in seen


def _blinded(token: str, value: object) -> int:
    """15 bits that stand for this value at this link: equal for equal values, without the token good for nothing."""
    digest = hashlib.sha256(f"hit\0{token}\0{value}".encode()).digest()
    return int.from_bytes(digest[:2], "big") & 0x7FFF
