"""Every table. Moments are BIGINT milliseconds since the epoch (UTC); states are the texts of the StrEnums in `core`.

The migrations under `migrations/` build these tables; `tests/storage` compares the two. What is not obvious:

* `identities` are the records of the sources; `people` are one human over all of them. A person holds no name: what is
  known of them stands in their records, so that a wrong link can be split without guessing.
* A touch in state `planned` is a row of `decisions`; it becomes a row of `touches` when its quota is taken.
* `address_hash` is an HMAC under the pepper of the normalised address (core.contacts.address_key).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives a self-counting rowid only to INTEGER PRIMARY KEY; PostgreSQL needs 64 bits.
Id = BigInteger().with_variant(Integer, "sqlite")
Ms = BigInteger


def _where(condition: str) -> dict[str, Any]:
    """A partial index, on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# --- the workspace and what connects it -----------------------------------------------------------------------------

workspace = Table(
    "workspace",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("config", JSON, nullable=False),  # the [workspace], [quarantine], [brakes], [[quiet_periods]] parts
    Column("applied_at", Ms, nullable=False),
    Column("digest", Text, nullable=False),  # of `config` as last applied from a file: another one now is drift
)

secrets = Table(  # one row per purpose: the pepper of address hashes is made at the first migration and never rotated
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
)

connections = Table(
    "connections",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("config", JSON, nullable=False),  # secrets by reference (env:NAME, file:PATH) or by row of `credentials`
    Column("state", Text, nullable=False, server_default="new"),  # new | ok | broken | removed
    Column("reason", Text, nullable=False, server_default=""),
    Column("account", Text, nullable=False, server_default=""),  # names the rate bucket
    Column("full_read_at", Ms),  # first complete read: no wave before it
    Column("synced_at", Ms),
    Column("digest", Text),  # of `config` as last applied from a file; NULL: made in the interface
    Column("changed_at", Ms, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("connection_id", Id, ForeignKey("connections.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

bookmarks = Table(
    "bookmarks",
    metadata,
    Column("connection_id", Id, ForeignKey("connections.id"), primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("watermark", Text, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

bad_records = Table(  # what a source held that could not be used, as of its last read
    "bad_records",
    metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id"), nullable=False, index=True),
    Column("place", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("seen_at", Ms, nullable=False),
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("account", Text, primary_key=True),
    Column("next_at", Ms, nullable=False),  # when the next call may leave: calls are spaced evenly
    Column("blocked_until", Ms, nullable=False, server_default="0"),  # a 429 stops everybody on the account
)

# --- people ---------------------------------------------------------------------------------------------------------

companies = Table(
    "companies",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # case-folded name
    Column("name", Text, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("id", Id, primary_key=True),
    Column("opted_out_at", Ms),  # by their own act, or an admin's: only a human undoes it
    Column("opted_out_by", Text),  # link | one_click | admin | tombstone | <connection name>
    Column("source_opted_out", Boolean, nullable=False, server_default=text("false")),  # some record says so now
    Column("hold_until", Ms),  # the latest nps_hold_until of the records
    Column("quarantine_until", Ms),  # strictest clock kept after an undone merge, until a human says otherwise
)

identities = Table(
    "identities",
    metadata,
    Column("id", Id, primary_key=True),
    Column("person_id", Id, ForeignKey("people.id"), nullable=False),
    Column("connection_id", Id, ForeignKey("connections.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("is_primary", Boolean, nullable=False, server_default=text("true")),  # the record asked, within connection
    Column("email", Text),  # as its owner writes it, stripped; None when there is none that could work
    Column("address_hash", LargeBinary),
    Column("shared", Boolean, nullable=False, server_default=text("false")),  # a mailbox of several people
    Column("company_id", Id, ForeignKey("companies.id")),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("language", Text),
    Column("country", Text),
    Column("time_zone", Text),
    Column("phone", Text),
    Column("owner", Text),
    Column("customer_since", Ms),  # midnight UTC of the date
    Column("opted_out", Boolean, nullable=False, server_default=text("false")),
    Column("last_surveyed_seen", Text),  # the text the source showed last
    Column("hold_until", Ms),
    Column("attributes", JSON, nullable=False),
    Column("nps_seen", JSON),  # values of the nps_* fields as the source showed them last
    Column("digest", LargeBinary, nullable=False),  # of all of the above as read: unchanged records are not written
    Column("gone_at", Ms),
    UniqueConstraint("connection_id", "external_id", name="uq_identities_record"),
    Index("ix_identities_person", "person_id"),
    Index("ix_identities_address", "address_hash"),
    Index("ix_identities_company", "company_id", "person_id"),
)

link_candidates = Table(  # records that may be one person: a human decides
    "link_candidates",
    metadata,
    Column("id", Id, primary_key=True),
    Column("identity_id", Id, ForeignKey("identities.id"), nullable=False),
    Column("other_identity_id", Id, ForeignKey("identities.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),  # open | linked | kept_apart
    Column("created_at", Ms, nullable=False),
    UniqueConstraint("identity_id", "other_identity_id", name="uq_link_candidates_pair"),
)

tombstones = Table(  # keeps clocks and opt-out of a deleted person without keeping the person
    "tombstones",
    metadata,
    Column("address_hash", LargeBinary, primary_key=True),
    Column("opted_out_at", Ms),
    Column("last_message_at", Ms),
    Column("quarantine_until", Ms),
    Column("erased", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", Ms, nullable=False),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("address_hash", LargeBinary, primary_key=True),
    Column("reason", Text, nullable=False),  # hard_bounce | complaint | manual
    Column("detail", Text, nullable=False, server_default=""),
    Column("source", Text, nullable=False, server_default=""),
    Column("created_at", Ms, nullable=False),
)

message_guard = Table(  # the 24 h floor, nothing else
    "message_guard",
    metadata,
    Column("identity_id", Id, ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
    Column("last_message_at", Ms, nullable=False),
)

# --- asking ---------------------------------------------------------------------------------------------------------

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("config", JSON, nullable=False),
    Column("state", Text, nullable=False, server_default="active"),  # active | stopped | paused | removed
    Column("reason", Text, nullable=False, server_default=""),
    Column("anonymous", Boolean, nullable=False, server_default=text("false")),
    Column("digest", Text),  # of `config` as last applied from a file; NULL: made in the interface
    Column("created_at", Ms, nullable=False),
    Column("changed_at", Ms, nullable=False),
)

waves = Table(
    "waves",
    metadata,
    Column("id", Id, primary_key=True),
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),  # open | closed
    Column("opens_at", Ms, nullable=False),
    Column("ends_at", Ms, nullable=False),  # nobody is asked from here on; answers are taken until the windows close
    Column("planned_at", Ms),
    Column("next_plan_at", Ms),
    Column("counts", JSON, nullable=False),  # {"asked": n, "not_asked": {rule: n}} of the last plan
    Column("unsealed_at", Ms),  # anonymous: when its answers may be read
    UniqueConstraint("campaign_id", "number", name="uq_waves_number"),
)

decisions = Table(  # the last decision on each person per campaign; a row changes only when the decision does
    "decisions",
    metadata,
    Column("campaign_id", Id, primary_key=True),
    Column("person_id", Id, primary_key=True),
    Column("wave_id", Id, nullable=False),
    Column("state", Text, nullable=False),  # planned | dropped
    Column("rule", Text),  # None: may be asked
    Column("until", Ms),
    Column("changed_at", Ms, nullable=False),
    sqlite_with_rowid=False,
)

touches = Table(
    "touches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False),  # 80 random bits; found through deliveries.key
    Column("person_id", Id),  # None after erasure; clocks then hang on address_hash
    Column("identity_id", Id),  # the record asked; never changed by a merge
    Column("company_id", Id),  # at asking
    Column("campaign_id", Id, ForeignKey("campaigns.id")),  # None: asked by another tool
    Column("wave_id", Id, ForeignKey("waves.id")),
    Column("type", Text, nullable=False, server_default="nps"),
    Column("source", Text, nullable=False, server_default="boucle"),  # boucle | outside | test (counts for nobody)
    Column("origin", Text, nullable=False, server_default=""),  # outside: which connection, or who said so
    Column("state", Text, nullable=False),
    Column("address_hash", LargeBinary),
    Column("reserved_at", Ms),
    Column("claimed_at", Ms),
    Column("handed_over_at", Ms),
    Column("asked_at", Ms, nullable=False),  # handed_over_at, else claimed_at, else reserved_at
    Column("asked_local_date", Text),  # YYYY-MM-DD in the recipient's zone
    Column("delivered_at", Ms),
    Column("opened_at", Ms),
    Column("window_closes_at", Ms),  # outside asks have none
    Column("answered_at", Ms),  # anonymous: None for ever, see `answered`
    Column("answered", Boolean, nullable=False, server_default=text("false")),
    Column("declined_at", Ms),
    Column("returned_at", Ms),
    Column("reason", Text, nullable=False, server_default=""),  # of `returned`: a ReturnReason
    Column("detail", Text, nullable=False, server_default=""),  # in the vendor's words
    Column("reminded_at", Ms),
    Column("event_at", Ms),  # triggers: when the event happened
    Column("clamped", Boolean, nullable=False, server_default=text("false")),  # the claimed date lay in the future
    # one standing ask per wave; a returned one may be followed by another, an answer may still come to either
    Index(
        "uq_touches_wave_person", "wave_id", "person_id", unique=True, **_where("state NOT IN ('returned', 'answered')")
    ),
    Index("ix_touches_returned", "wave_id", **_where("state = 'returned'")),
    # covers the clocks: the planner never leaves this index
    Index(
        "ix_touches_clock",
        "person_id", "asked_at", "state", "type", "campaign_id", "answered_at", "declined_at", "window_closes_at",
        "answered", "asked_local_date",
    ),
    Index("ix_touches_company", "company_id", "asked_at"),
    Index("ix_touches_campaign", "campaign_id", "reserved_at"),
    # in the order they left: for the brakes, which look whenever something was turned down
    Index("ix_touches_sent", "campaign_id", "claimed_at", **_where("claimed_at IS NOT NULL")),
    Index("ix_touches_address", "address_hash"),
)  # fmt: skip

survey_links = Table(
    "survey_links",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),  # H("touch", token)
    Column("touch_id", Id, ForeignKey("touches.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # invite | reminder
    sqlite_with_rowid=False,
)

responses = Table(
    "responses",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # random: the order of arrival is nobody's business
    Column("campaign_id", Id, ForeignKey("campaigns.id"), nullable=False),
    Column("wave_id", Id, ForeignKey("waves.id")),
    Column("touch_id", Id),  # None for anonymous answers
    Column("person_id", Id),
    Column("identity_id", Id),
    Column("answer_hash", LargeBinary, unique=True),  # H("answer", token): anonymous answers are found by it alone
    Column("score", SmallInteger),  # None while sealed
    Column("comment", Text),
    Column("reason", Text),  # the follow-up question's text as shown, so that a comment can be read in context
    Column("sealed", LargeBinary),  # anonymous, until 5 answers are in: score and comment, encrypted
    Column("language", Text),
    Column("channel", Text, nullable=False, server_default="web"),  # web | phone | import | test (counts nowhere)
    Column("verdict", Text, nullable=False),  # confirmed | suspect | dismissed
    Column("signals", JSON, nullable=False),
    Column("partial", Boolean, nullable=False, server_default=text("false")),
    Column("late", Boolean, nullable=False, server_default=text("false")),  # after the window: not in the wave's figure
    Column("mismatch", Boolean, nullable=False, server_default=text("false")),  # looks like a forwarded link
    Column("version", Integer, nullable=False, server_default="1"),
    Column("attributes", JSON),  # anonymous: only values shared by at least 5 people
    Column("answered_at", Ms),  # anonymous: None until the wave closes
    Column("updated_at", Ms),
    Index("ix_responses_campaign", "campaign_id", "answered_at"),
    Index("ix_responses_touch", "touch_id"),
    Index("ix_responses_person", "person_id"),
)

response_versions = Table(  # every version of an identified answer; anonymous ones keep none
    "response_versions",
    metadata,
    Column("response_id", Id, ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("score", SmallInteger),
    Column("comment", Text),
    Column("verdict", Text, nullable=False),
    Column("signals", JSON, nullable=False),
    Column("at", Ms, nullable=False),
)

hits = Table(  # what was fetched, for the verdict; kept `retention_days.hits`
    "hits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("link_hash", LargeBinary, nullable=False),  # H("hit", token): joins neither touches nor responses
    Column("at", Ms, nullable=False, index=True),
    Column("method", Text, nullable=False),
    Column("score", SmallInteger),
    Column("honeypot", Boolean, nullable=False, server_default=text("false")),
    Column("agent", Text, nullable=False, server_default=""),
    Column("network", Text, nullable=False, server_default=""),  # truncated address
    Index("ix_hits_link", "link_hash", "at"),
)

follow_ups = Table(
    "follow_ups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("response_id", Id, ForeignKey("responses.id"), nullable=False),
    Column("person_id", Id),
    Column("state", Text, nullable=False),
    Column("owner", Text, nullable=False, server_default=""),
    Column("due_at", Ms),
    Column("created_at", Ms, nullable=False),
    Column("changed_at", Ms, nullable=False),
    Column("closed_at", Ms),
    Index("ix_follow_ups_open", "person_id", **_where("closed_at IS NULL")),
)  # fmt: skip

segments = Table(
    "segments",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("config", JSON, nullable=False),
)

segment_members = Table(
    "segment_members",
    metadata,
    Column("segment_id", Id, ForeignKey("segments.id"), primary_key=True),
    Column("person_id", Id, primary_key=True),
    Column("since", Ms, nullable=False),
    sqlite_with_rowid=False,
)

incidents = Table(  # what stops messages, or needs a human: brakes, broken connections, declared incidents
    "incidents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Text, nullable=False),  # brake | connection | declared
    Column("campaign_id", Id),
    Column("connection_id", Id),
    Column("company_id", Id),  # declared for one company; None with kind declared: for everybody
    Column("reason", Text, nullable=False),
    Column("opened_at", Ms, nullable=False),
    Column("closed_at", Ms),
    Index("ix_incidents_open", "kind", **_where("closed_at IS NULL")),
)  # fmt: skip

# --- in and out -----------------------------------------------------------------------------------------------------

inbox = Table(
    "inbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id"), nullable=False),
    Column("delivery_id", Text, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False, server_default="ready"),  # ready | applying | done | failed
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Ms, nullable=False),
    Column("lease_until", Ms),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("error", Text, nullable=False, server_default=""),
    Column("received_at", Ms, nullable=False),
    UniqueConstraint("connection_id", "delivery_id", name="uq_inbox_delivery"),
    Index("ix_inbox_due", "state", "due_at"),
)

events = Table(  # the dedupe unit: stored when applied
    "events",
    metadata,
    Column("connection_id", Id, ForeignKey("connections.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("applied_at", Ms, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # belongs to the effect, never to the attempt
    Column("kind", Text, nullable=False),  # send | write_back | task | note | notice | segment
    Column("connection_id", Id, ForeignKey("connections.id"), nullable=False),
    Column("touch_id", Id),  # send
    Column("identity_id", Id),  # write_back: the record
    Column("state", Text, nullable=False, server_default="ready"),
    Column("due_at", Ms, nullable=False),
    Column("expires_at", Ms),  # send: when the reservation is returned
    Column("lease_until", Ms),
    Column("owner", Text),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("wanted_version", Integer, nullable=False, server_default="1"),  # level-triggered: write_back
    Column("done_version", Integer, nullable=False, server_default="0"),
    Column("payload", JSON),  # send: {"token": ...} until handed over; write_back: what was last written
    Column("vendor_ref", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at", Ms, nullable=False),
    Column("done_at", Ms),
    # what is due, per connection: finished rows are not in it
    Index(
        "ix_deliveries_due", "connection_id", "kind", "state", "due_at",
        **_where("state IN ('ready', 'sending')"),
    ),
    Index("ix_deliveries_touch", "touch_id"),
    Index("ix_deliveries_identity", "identity_id", **_where("identity_id IS NOT NULL")),
)  # fmt: skip

# --- keeping house --------------------------------------------------------------------------------------------------

leases = Table(  # one holder at a time per job and argument; also when each last ran to its end
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("lease_until", Ms, nullable=False),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("finished_at", Ms),
    Column("due_at", Ms, nullable=False, server_default="0"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Ms, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False, server_default=""),
    Column("detail", JSON, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("disabled_at", Ms),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("last_used_at", Ms),
    Column("revoked_at", Ms),
)
