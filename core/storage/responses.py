"""Answers: taking one, changing it, letting a human decide on it, showing the latest.

The score is stored at its first POST. There is one answer per touch, whichever of its links was used; a later one
updates it, and every version of an identified answer is kept. A suspect answer is stored and shown as such: it moves no
touch, is written back nowhere, and never takes the place of a confirmed one. Anonymous answers are in `anonymous`.

Whose answer it is. Normally the person's who was asked. It is nobody's in particular (`person_id` is NULL, so no record
shows its score, while the dates of the person asked go on following the ledger) when

* the address is a mailbox that several people share: nobody says who of them answered. The answer is the company's,
  found through its touch. The page asks nobody for a name, so for now no respondent names themself;
* the link was forwarded (`Given.forwarded`): recorded against the invitation with the flag `mismatch`, apart from what
  the invited person may still answer, and it does not start their clock;
* the person was deleted or erased meanwhile.

Answers of test recipients, while the workspace is not live, have the channel `test`: shown, and counted nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, null, select, update

from core.answers import FINISH_MS, Given, Verdict, verdict
from core.errors import NotFound
from core.ids import random_rowid
from core.keyring import Keyring
from core.scores import category
from core.storage import anonymous, touches
from core.storage.deliveries import request_write_back
from core.storage.schema import campaigns, identities, response_versions, responses
from core.storage.schema import touches as ledger
from core.storage.touches import LinkedTouch
from core.storage.trials import SOURCE as TRIAL
from core.touches import TouchState


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an answer.

    `verdict` is that of the answer as it now stands. `late`: it came after the window. `partial`: no comment.
    `edit_refused`: it was not taken: an anonymous answer was given by another link, or the window has closed;
    `response_id` is None when the answer that stands cannot be seen by this link.
    """

    response_id: int | None
    version: int
    verdict: Verdict
    late: bool
    partial: bool
    edit_refused: bool


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer that stands for a link, to show it again. A suspect one may be a machine's: do not preselect it."""

    response_id: int
    score: int
    comment: str | None
    verdict: Verdict
    version: int


def may_edit(touch: LinkedTouch, now: int) -> bool:
    """Whether the window is open. A first answer is taken after it too, as late: `record_answer` decides."""
    return touch.window_closes_at is None or now < touch.window_closes_at


def record_answer(tx: Connection, touch: LinkedTouch, token: str, given: Given, keyring: Keyring, now: int) -> Recorded:
    """Take an answer that was posted for `token`, a link of `touch`. Posting the same twice changes nothing more."""
    asked = _lock(tx, touch.touch_id)
    if touch.anonymous:
        return _recorded_anonymously(tx, touch, token, given, keyring, now, asked)
    standing = _standing(tx, touch.touch_id, forwarded=given.forwarded)
    if standing is None:
        return _insert(tx, asked, given, now)
    return _update(tx, asked, standing, given, now)


def find_answer(tx: Connection, touch: LinkedTouch, token: str, keyring: Keyring) -> StoredAnswer | None:
    """The answer that stands for this link. An anonymous one is found by the very link that gave it, and no other."""
    if touch.anonymous:
        found = anonymous.find(tx, token, keyring)
        return None if found is None else StoredAnswer(
            found.response_id, found.sealed.score, found.sealed.comment, found.verdict, found.sealed.version
        )  # fmt: skip
    row = _standing(tx, touch.touch_id, forwarded=False)
    if row is None or row.score is None:
        return None
    return StoredAnswer(row.id, row.score, row.comment, row.verdict, row.version)


def decline(tx: Connection, touch: LinkedTouch, now: int) -> bool:
    """ "I'd rather not answer": the touch is declined, unless it is answered. Returns whether it stands declined."""
    asked = _lock(tx, touch.touch_id)
    if asked.answered:
        return False
    touches.mark_declined(tx, [touch.touch_id], now)
    request_write_back(tx, _known(asked.person_id), now)
    return True


def release(tx: Connection, response_id: int, now: int) -> None:
    """A human says that this answer counts. Raises NotFound; one that counts already stays as it is.

    A released anonymous answer counts like any other, but moves no touch: nobody knows whose it is.
    """
    row = _by_id(tx, response_id)
    if row.verdict == Verdict.CONFIRMED:
        return
    tx.execute(update(responses).where(responses.c.id == response_id).values(verdict=Verdict.CONFIRMED))
    sealed = responses.c.sealed.is_not(null())
    tx.execute(update(responses).where(responses.c.id == response_id, sealed).values(signals=[]))
    if row.touch_id is not None and not row.mismatch:
        _settle(tx, _lock(tx, row.touch_id), row.answered_at or now, now)


def dismiss(tx: Connection, response_id: int, now: int) -> None:
    """A human says that this answer does not count. Raises NotFound. What was written back of it is taken back.

    The touch stays as it is: a clock is never set back by a judgement.
    """
    row = _by_id(tx, response_id)
    if row.verdict == Verdict.DISMISSED:
        return
    tx.execute(update(responses).where(responses.c.id == response_id).values(verdict=Verdict.DISMISSED))
    if row.verdict == Verdict.CONFIRMED:
        request_write_back(tx, _known(row.person_id), now)


@dataclass(frozen=True, slots=True)
class LatestScore:
    """A confirmed answer as the start page shows it. Of an anonymous one: the campaign, and the score once opened."""

    category: str | None
    score: int | None
    name: str | None
    email: str | None
    campaign: str
    comment: str | None
    answered_at: int | None


def latest_scores(tx: Connection, keyring: Keyring, limit: int) -> list[LatestScore]:
    """The newest confirmed answers; anonymous ones that are still sealed come last, as they have no time.

    `keyring` is not used: what is sealed is opened by `anonymous.unseal_due` alone, for nobody earlier.
    """
    newest: list[tuple[int, int]] = []
    for campaign_id in tx.scalars(select(campaigns.c.id)).all():  # each from the end of its part of the index
        newest += _newest(tx, campaign_id, limit)
    chosen = [response_id for _, response_id in sorted(newest, reverse=True)[:limit]]
    rows = {row.id: _latest(row) for row in tx.execute(_SHOWN.where(responses.c.id.in_(chosen)))}
    return [rows[response_id] for response_id in chosen]


def _newest(tx: Connection, campaign_id: int, limit: int) -> list[tuple[int, int]]:
    """(moment, id) of the newest confirmed answers of a campaign; sealed ones, which have no time, fill up as 0."""
    r = responses.c
    counting = select(r.answered_at, r.id).where(r.campaign_id == campaign_id, r.verdict == Verdict.CONFIRMED)
    timed = counting.where(r.answered_at.is_not(null())).order_by(r.answered_at.desc(), r.id.desc()).limit(limit)
    found = [(row[0], row[1]) for row in tx.execute(timed)]
    sealed = counting.where(r.answered_at.is_(null())).limit(limit - len(found))
    return found + [(0, row[1]) for row in tx.execute(sealed)]


def _shown() -> Any:
    r, i = responses.c, identities.c
    return (
        select(
            r.id, r.score, r.comment, r.answered_at, r.touch_id, r.person_id, r.mismatch, i.first_name, i.last_name,
            i.email, campaigns.c.name, campaigns.c.anonymous,
        )
        .join(campaigns, campaigns.c.id == r.campaign_id)
        .outerjoin(ledger, ledger.c.id == r.touch_id)
        .outerjoin(identities, i.id == func.coalesce(r.identity_id, ledger.c.identity_id))
    )  # fmt: skip


_SHOWN = _shown()


def _latest(row: Any) -> LatestScore:
    band = None if row.score is None else category(row.score).value
    if row.anonymous:
        return LatestScore(band, row.score, None, None, row.name, None, row.answered_at)
    # of a shared mailbox the address says more than one of the names behind it; of a forwarded link, neither is known
    name = " ".join(part for part in (row.first_name, row.last_name) if part) if row.person_id is not None else ""
    email = None if row.mismatch else row.email
    return LatestScore(band, row.score, name or None, email, row.name, row.comment, row.answered_at)


# --- identified answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """The touch as it is now: it may have moved since its link was looked up."""

    id: int
    person_id: int | None
    identity_id: int | None
    campaign_id: int
    wave_id: int | None
    answered: bool
    window_closes_at: int | None
    trial: bool


@dataclass(frozen=True, slots=True)
class _Standing:
    """An answer as it stands."""

    id: int
    touch_id: int | None
    person_id: int | None
    score: int | None
    comment: str | None
    verdict: Verdict
    version: int
    late: bool
    mismatch: bool
    answered_at: int | None


_STANDING = select(
    responses.c.id, responses.c.touch_id, responses.c.person_id, responses.c.score, responses.c.comment,
    responses.c.verdict, responses.c.version, responses.c.late, responses.c.mismatch, responses.c.answered_at,
)  # fmt: skip


def _lock(tx: Connection, touch_id: int) -> _Asked:
    """The touch, held until the transaction ends: of two answers at once one comes after the other."""
    t = ledger.c
    row = tx.execute(
        select(
            t.id, t.person_id, t.identity_id, t.campaign_id, t.wave_id, t.state, t.answered, t.window_closes_at,
            t.source,
        )
        .where(t.id == touch_id)
        .with_for_update()
    ).one()  # fmt: skip
    return _Asked(
        id=row.id,
        person_id=row.person_id,
        identity_id=row.identity_id,
        campaign_id=row.campaign_id,
        wave_id=row.wave_id,
        answered=row.answered or row.state == TouchState.ANSWERED,
        window_closes_at=row.window_closes_at,
        trial=row.source == TRIAL,
    )


def _standing(tx: Connection, touch_id: int, *, forwarded: bool) -> _Standing | None:
    which = _STANDING.where(responses.c.touch_id == touch_id, responses.c.mismatch.is_(forwarded))
    return _read(tx, which)


def _by_id(tx: Connection, response_id: int) -> _Standing:
    found = _read(tx, _STANDING.where(responses.c.id == response_id).with_for_update())
    if found is None:
        raise NotFound(f"there is no answer {response_id}; `flask responses list` shows the suspect ones")
    return found


def _read(tx: Connection, which: Any) -> _Standing | None:
    row = tx.execute(which).first()
    return None if row is None else _Standing(**{**row._mapping, "verdict": Verdict(row.verdict)})


def _insert(tx: Connection, asked: _Asked, given: Given, now: int) -> Recorded:
    response_id = random_rowid()
    decided = verdict(given.signals)
    late = _is_late(asked, now)
    person_id, identity_id = (None, None) if given.forwarded else _whose(tx, asked)
    values = {
        "campaign_id": asked.campaign_id, "wave_id": asked.wave_id, "touch_id": asked.id, "person_id": person_id,
        "identity_id": identity_id, "mismatch": given.forwarded, "late": late, "answered_at": now, "version": 1,
        "channel": TRIAL if asked.trial else "web",
        **_said(given, given.comment or None, decided, now),
    }  # fmt: skip
    tx.execute(insert(responses).values(id=response_id, **values))
    _keep_version(tx, response_id, 1, values, now)
    if decided is Verdict.CONFIRMED and not given.forwarded:
        _settle(tx, asked, now, now)
    return Recorded(response_id, 1, decided, late, values["partial"], edit_refused=False)


def _update(tx: Connection, asked: _Asked, standing: _Standing, given: Given, now: int) -> Recorded:
    stood = standing.verdict
    decided = verdict(given.signals)
    comment = standing.comment if given.comment is None else given.comment or None
    unchanged = (standing.score, standing.comment) == (given.score, comment)
    if stood is Verdict.CONFIRMED and not unchanged and not _may_still_change(asked, standing, now):
        return _recorded(standing, refused=True)
    if unchanged and (stood is Verdict.CONFIRMED or decided is Verdict.SUSPECT):
        return _recorded(standing)
    values = _said(given, comment, decided, now)
    version = standing.version + 1
    if stood is Verdict.CONFIRMED and decided is Verdict.SUSPECT:
        return _put_aside(tx, standing, values, version, now)
    late = standing.late
    if stood is not Verdict.CONFIRMED and decided is Verdict.CONFIRMED:
        late = _is_late(asked, now)
        values |= {"late": late, "answered_at": now}
    tx.execute(update(responses).where(responses.c.id == standing.id).values(version=version, **values))
    _keep_version(tx, standing.id, version, values, now)
    if decided is Verdict.CONFIRMED and not given.forwarded:
        _settle(tx, asked, now, now)
    return Recorded(standing.id, version, decided, late, values["partial"], edit_refused=False)


def _put_aside(tx: Connection, standing: _Standing, values: Mapping[str, Any], version: int, now: int) -> Recorded:
    """What looks like a machine's after a confirmed answer: kept as a flagged version, the confirmed values stand."""
    v = response_versions.c
    last = tx.execute(
        select(v.score, v.comment, v.verdict).where(v.response_id == standing.id, v.version == standing.version)
    ).first()
    if last is None or tuple(last) != (values["score"], values["comment"], values["verdict"]):
        _keep_version(tx, standing.id, version, values, now)
        tx.execute(update(responses).where(responses.c.id == standing.id).values(version=version))
        return Recorded(standing.id, version, Verdict.CONFIRMED, standing.late, standing.comment is None, False)
    return _recorded(standing)


def _recorded(standing: _Standing, *, refused: bool = False) -> Recorded:
    return Recorded(standing.id, standing.version, standing.verdict, standing.late, standing.comment is None, refused)


def _said(given: Given, comment: str | None, decided: Verdict, now: int) -> dict[str, Any]:
    return {
        "score": given.score,
        "comment": comment,
        "reason": given.question,
        "language": given.language,
        "verdict": decided,
        "signals": [signal.value for signal in given.signals],
        "partial": comment is None,
        "updated_at": now,
    }


def _keep_version(tx: Connection, response_id: int, version: int, values: Mapping[str, Any], now: int) -> None:
    kept = {name: values[name] for name in ("score", "comment", "verdict", "signals")}
    tx.execute(insert(response_versions).values(response_id=response_id, version=version, at=now, **kept))


def _whose(tx: Connection, asked: _Asked) -> tuple[int | None, int | None]:
    """(person, record) the answer belongs to; neither for a mailbox of several people."""
    if asked.person_id is None or asked.identity_id is None:
        return asked.person_id, asked.identity_id
    shared = tx.scalar(select(identities.c.shared).where(identities.c.id == asked.identity_id))
    return (None, None) if shared else (asked.person_id, asked.identity_id)


def _settle(tx: Connection, asked: _Asked, answered_at: int, now: int) -> None:
    """The answer counts: the clock of the person asked starts, and their records are brought up to date."""
    touches.mark_answered(tx, asked.id, answered_at)
    request_write_back(tx, _known(asked.person_id), now)


def _known(person_id: int | None) -> list[int]:
    return [] if person_id is None else [person_id]


def _is_late(asked: _Asked, now: int) -> bool:
    return asked.window_closes_at is not None and now >= asked.window_closes_at


def _may_still_change(asked: _Asked, standing: _Standing, now: int) -> bool:
    return not _is_late(asked, now) or now - (standing.answered_at or 0) < FINISH_MS


def _recorded_anonymously(
    tx: Connection, touch: LinkedTouch, token: str, given: Given, keyring: Keyring, now: int, asked: _Asked
) -> Recorded:
    channel = TRIAL if asked.trial else "web"
    taken = anonymous.record(tx, touch, token, given, keyring, now, answered=asked.answered, channel=channel)
    if taken is None:
        return Recorded(None, 0, Verdict.CONFIRMED, False, False, edit_refused=True)
    sealed = taken.sealed
    return Recorded(
        taken.response_id, sealed.version, taken.verdict, sealed.late, sealed.comment is None, taken.edit_refused
    )
