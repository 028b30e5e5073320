"""Answers that nobody can tell from whom: FREQUENCY.md, "Anonymous campaigns".

What stands in the tables while a wave runs: the touch says that it was answered, not when; the answer says to which
wave it belongs, not what it says. They share nothing: the answer is found by H("answer", token), the touch's link by
H("touch", token), and the token itself is kept nowhere. Score, comment, the question shown, language, attributes,
whether it was late and how often it was changed are sealed together: encrypted, and padded so that their length tells
nothing. So even the only answer of a wave, whose touch everybody can see, says nothing.

When a wave is over and FLOOR answers are in, they are opened together (`unseal_due`): rows under new random ids,
without the hash of the token, all with the moment of the opening as their time. Who compares a dump of before with one
of after learns no more. Of what is known of the respondents an answer then shows only what at least FLOOR answers
opened with it share, and what is left out is left out of at least FLOOR as well, or of none. Fewer answers than FLOOR
are never opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, LargeBinary, delete, func, insert, null, or_, select, update

from core.answers import FINISH_MS, STRONG, Given, Verdict, verdict
from core.ids import random_rowid, token_hash
from core.keyring import Keyring
from core.storage import touches
from core.storage.schema import campaigns, identities, responses, waves
from core.storage.schema import touches as ledger
from core.storage.touches import LinkedTouch

#: Fewer answers than this are never opened, and nothing that fewer share is ever shown.
FLOOR = 5
#: Answers opened in one transaction.
AT_ONCE = 250
#: Lengths a sealed answer may have: the second only for long comments that hardly compress.
SIZES = (4_096, 24_576)
#: Bytes before the ciphertext that name the key.
KEY_ID = 40
#: Of the record asked: where it is, and at most so many further attributes that the campaign's audience names.
MOST_ATTRIBUTES = 3


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an anonymous answer says."""

    score: int
    comment: str | None
    question: str | None
    language: str
    late: bool
    version: int
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """An anonymous answer, found by the token that gave it."""

    response_id: int
    verdict: Verdict
    sealed: Sealed
    edit_refused: bool = False


def record(
    tx: Connection, touch: LinkedTouch, token: str, given: Given, keyring: Keyring, now: int, *,
    answered: bool, channel: str = "web",
) -> Found | None:  # fmt: skip
    """Take an answer. None: another link of this touch has answered, or the answer of this one has been opened.

    `answered` is the touch's flag as it is now, read under its lock. A suspect answer moves no touch; after a confirmed
    one it leaves no trace.
    """
    standing = find(tx, token, keyring)
    if standing is None and answered:
        return None
    decided = verdict(given.signals)
    closes_at = touch.window_closes_at
    late = closes_at is not None and now >= closes_at
    if standing is None:
        taken = _insert(tx, touch, token, given, keyring, decided, late, channel)
    else:
        # nobody knows when it was begun: whoever answered at all has a page's life after the window to finish
        may_change = standing.sealed.late or closes_at is None or now < closes_at + FINISH_MS
        taken = _update(tx, standing, given, keyring, decided, late, may_change)
    if taken.verdict is Verdict.CONFIRMED and not answered:
        touches.mark_answered(tx, touch.touch_id, None)
    return taken


def find(tx: Connection, token: str, keyring: Keyring) -> Found | None:
    """The sealed answer that this token gave."""
    r = responses.c
    row = tx.execute(
        select(r.id, r.verdict, r.sealed).where(r.answer_hash == token_hash("answer", token), r.sealed.is_not(null()))
    ).first()
    return None if row is None else Found(row.id, Verdict(row.verdict), _open(keyring, row.id, row.sealed))


def _insert(
    tx: Connection, touch: LinkedTouch, token: str, given: Given, keyring: Keyring, decided: Verdict, late: bool,
    channel: str,
) -> Found:  # fmt: skip
    known = _known_of(tx, touch)
    sealed = Sealed(given.score, given.comment or None, given.question, given.language, late, 1, known)
    response_id = random_rowid()
    tx.execute(
        insert(responses).values(
            id=response_id,
            campaign_id=touch.campaign_id,
            wave_id=touch.wave_id,
            answer_hash=token_hash("answer", token),
            sealed=_seal(keyring, response_id, sealed),
            verdict=decided,
            signals=_shown_signals(given, decided),
            channel=channel,
        )
    )
    return Found(response_id, decided, sealed)


def _update(
    tx: Connection, standing: Found, given: Given, keyring: Keyring, decided: Verdict, late: bool, may_change: bool
) -> Found:
    before = standing.sealed
    comment = before.comment if given.comment is None else given.comment or None
    unchanged = (before.score, before.comment) == (given.score, comment)
    confirmed = standing.verdict is Verdict.CONFIRMED
    if (confirmed and (decided is Verdict.SUSPECT or unchanged)) or (unchanged and decided is Verdict.SUSPECT):
        return standing
    if confirmed and not may_change:
        return replace(standing, edit_refused=True)
    after = replace(
        before, score=given.score, comment=comment, question=given.question, language=given.language,
        late=before.late if confirmed else late, version=before.version + 1,
    )  # fmt: skip
    tx.execute(
        update(responses)
        .where(responses.c.id == standing.response_id)
        .values(
            sealed=_seal(keyring, standing.response_id, after),
            verdict=decided,
            signals=_shown_signals(given, decided),
        )
    )
    return Found(standing.response_id, decided, after)


def _shown_signals(given: Given, decided: Verdict) -> list[str]:
    """Only what made it suspect, for the human who decides: of an answer that counts, how it came tells too much."""
    if decided is Verdict.CONFIRMED:
        return []
    return [signal.value for signal in given.signals if signal in STRONG]


# --- what is known of the respondent --------------------------------------------------------------------------------


def _known_of(tx: Connection, touch: LinkedTouch) -> dict[str, str]:
    """Country, and up to MOST_ATTRIBUTES of the attributes by which the campaign chooses whom it asks."""
    i = identities.c
    row = tx.execute(select(i.country, i.attributes).where(i.id == touch.identity_id)).first()
    if row is None:
        return {}
    config = tx.scalar(select(campaigns.c.config).where(campaigns.c.id == touch.campaign_id)) or {}
    named = [name for name in sorted(config.get("audience") or {}) if name in (row.attributes or {})]
    values = {"country": row.country, **{name: row.attributes[name] for name in named[:MOST_ATTRIBUTES]}}
    return {name: str(value).strip()[:100] for name, value in values.items() if value not in (None, "")}


def shared_by_enough(rows: Sequence[dict[str, str]], names: Iterable[str], floor: int = FLOOR) -> list[dict[str, str]]:
    """What each of these rows may show so that at least `floor` rows show exactly the same.

    Name by name, each group is split by its value as far as every part, those without a value included, keeps `floor`
    rows; values too rare are left out together, with the rarest of the others if they alone were too few.
    """
    shown: list[dict[str, str]] = [{} for _ in rows]
    groups = [list(range(len(rows)))]
    for name in names:
        groups = [part for group in groups for part in _split(rows, group, name, floor)]
        for part in groups:
            values = {rows[place].get(name) for place in part}
            value = values.pop() if len(values) == 1 else None
            if value is not None:
                for place in part:
                    shown[place][name] = value
    return shown


def _split(rows: Sequence[dict[str, str]], group: Sequence[int], name: str, floor: int) -> list[list[int]]:
    by_value: dict[str | None, list[int]] = {}
    for place in group:
        by_value.setdefault(rows[place].get(name), []).append(place)
    rest = by_value.pop(None, [])
    large: list[list[int]] = []
    for part in sorted(by_value.values(), key=len, reverse=True):
        if len(part) >= floor:
            large.append(part)
        else:
            rest = rest + part
    while large and 0 < len(rest) < floor:
        rest = rest + large.pop()
    return large + ([rest] if rest else [])


#: Sealed answers have no time: so the index on campaign and time finds them.
_SEALED = (
    responses.c.campaign_id.in_(select(campaigns.c.id)),
    responses.c.answered_at.is_(null()),
    responses.c.sealed.is_not(null()),
)

# --- opening --------------------------------------------------------------------------------------------------------


def unseal_due(tx: Connection, keyring: Keyring, now: int) -> int:
    """Open the answers of one wave that is over, at most AT_ONCE and a few; returns how many. Call until it returns 0.

    Raises UnknownKey if a key is missing.
    """
    for campaign_id, wave_id, waiting in _waiting(tx):
        if waiting >= FLOOR and _is_over(tx, campaign_id, wave_id, now):
            return _unseal(tx, keyring, wave_id, _many(waiting), now)
    return 0


def _many(waiting: int) -> int:
    """Never so many that fewer than FLOOR stay behind."""
    return waiting if waiting < AT_ONCE + FLOOR else AT_ONCE


def _waiting(tx: Connection) -> list[tuple[int, int, int]]:
    """(campaign, wave, sealed answers that count)."""
    r = responses.c
    rows = tx.execute(
        select(r.campaign_id, r.wave_id, func.count())
        .where(*_SEALED, r.verdict == Verdict.CONFIRMED)
        .group_by(r.campaign_id, r.wave_id)
        .order_by(r.campaign_id, r.wave_id)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def _is_over(tx: Connection, campaign_id: int, wave_id: int, now: int) -> bool:
    """Nobody is asked any more, and nobody may change an answer any more."""
    ended = select(waves.c.id).where(waves.c.id == wave_id, or_(waves.c.ends_at <= now, waves.c.state == "closed"))
    if tx.scalar(ended) is None:
        return False
    still_open = select(ledger.c.id).where(
        ledger.c.campaign_id == campaign_id, ledger.c.wave_id == wave_id, ledger.c.window_closes_at > now - FINISH_MS
    )
    return tx.scalar(still_open.limit(1)) is None


def _unseal(tx: Connection, keyring: Keyring, wave_id: int, many: int, now: int) -> int:
    r = responses.c
    rows = tx.execute(
        select(r.id, r.campaign_id, r.sealed)
        .where(r.wave_id == wave_id, r.sealed.is_not(null()), r.verdict == Verdict.CONFIRMED)
        .order_by(r.id)
        .limit(many)
    ).all()
    opened = [_open(keyring, row.id, row.sealed) for row in rows]
    shown = _what_is_shown(opened)
    tx.execute(delete(responses).where(r.id.in_([row.id for row in rows])))
    tx.execute(
        insert(responses),
        [
            _opened_row(one, attributes, campaign_id=rows[0].campaign_id, wave_id=wave_id, answered_at=now)
            for one, attributes in zip(opened, shown, strict=True)
        ],
    )
    tx.execute(update(waves).where(waves.c.id == wave_id).values(unsealed_at=func.coalesce(waves.c.unsealed_at, now)))
    return len(opened)


_LATE, _LANGUAGE = "\0late", "\0language"


def _what_is_shown(opened: Sequence[Sealed]) -> list[dict[str, str]]:
    """Per answer: whether it was late and its language stand beside the attributes, and are held back as they are."""
    rows = [{_LATE: "late" if one.late else "in time", _LANGUAGE: one.language, **one.attributes} for one in opened]
    others = sorted({name for row in rows for name in row} - {_LATE, _LANGUAGE, "country"})
    return shared_by_enough(rows, (_LATE, "country", _LANGUAGE, *others))


def _opened_row(one: Sealed, shown: dict[str, str], **fixed: Any) -> dict[str, Any]:
    return {
        "id": random_rowid(),
        "score": one.score,
        "comment": one.comment,
        "reason": one.question,
        "language": shown.get(_LANGUAGE),
        "late": shown.get(_LATE) == "late",
        "partial": one.comment is None,
        "verdict": Verdict.CONFIRMED,
        "signals": [],
        "attributes": {name: value for name, value in shown.items() if not name.startswith("\0")},
        **fixed,
    }


# --- sealing --------------------------------------------------------------------------------------------------------


def _seal(keyring: Keyring, response_id: int, sealed: Sealed) -> bytes:
    """The key's id in KEY_ID bytes, then the ciphertext. The plaintext is compressed and padded to one of SIZES."""
    packed = zlib.compress(json.dumps(asdict(sealed), ensure_ascii=False).encode("utf-8", "replace"), 9)
    plain = len(packed).to_bytes(4, "big") + packed
    size = next((size for size in SIZES if len(plain) <= size), len(plain))
    ciphertext, key_id = keyring.encrypt(plain.ljust(size, b"\0"), _place(response_id))
    return key_id.encode().ljust(KEY_ID, b"\0") + ciphertext


def _open(keyring: Keyring, response_id: int, stored: bytes) -> Sealed:
    key_id, ciphertext = bytes(stored[:KEY_ID]).rstrip(b"\0").decode(), bytes(stored[KEY_ID:])
    plain = keyring.decrypt(ciphertext, key_id, _place(response_id))
    length = int.from_bytes(plain[:4], "big")
    return Sealed(**json.loads(zlib.decompress(plain[4 : 4 + length])))


def sealed_with(tx: Connection) -> list[str]:
    """The ids of the keys that some answer is sealed with: without them it is lost."""
    r = responses.c
    key_ids = tx.scalars(select(func.substr(r.sealed, 1, KEY_ID, type_=LargeBinary)).where(*_SEALED).distinct())
    return sorted(bytes(key_id).rstrip(b"\0").decode() for key_id in key_ids)


def _place(response_id: int) -> str:
    return f"responses:{response_id}:sealed"
