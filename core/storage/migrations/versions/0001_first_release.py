"""The first release: every table.

Names of keys and constraints follow the naming convention of `core.storage.schema.metadata`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite gives a self-counting rowid only to INTEGER PRIMARY KEY; PostgreSQL needs 64 bits.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MS = sa.BigInteger()  # milliseconds since the epoch


def upgrade() -> None:
    _the_workspace_and_what_connects_it()
    _people()
    _asking()
    _in_and_out()
    _keeping_house()


def _the_workspace_and_what_connects_it() -> None:
    """The workspace and what connects it."""
    op.create_table(
        "workspace",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("applied_at", MS, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
    )
    op.create_table(
        "connections",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="new"),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("account", sa.Text(), nullable=False, server_default=""),
        sa.Column("full_read_at", MS),
        sa.Column("synced_at", MS),
        sa.Column("digest", sa.Text()),
        sa.Column("changed_at", MS, nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("updated_at", MS, nullable=False),
    )
    op.create_table(
        "bookmarks",
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), primary_key=True),
        sa.Column("stream", sa.Text(), primary_key=True),
        sa.Column("watermark", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("updated_at", MS, nullable=False),
    )
    op.create_table(
        "bad_records",
        sa.Column("id", ID, primary_key=True),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen_at", MS, nullable=False),
    )
    op.create_index("ix_bad_records_connection_id", "bad_records", ["connection_id"])
    op.create_table(
        "rate_buckets",
        sa.Column("account", sa.Text(), primary_key=True),
        sa.Column("next_at", MS, nullable=False),
        sa.Column("blocked_until", MS, nullable=False, server_default="0"),
    )


def _people() -> None:
    """People."""
    op.create_table(
        "companies",
        sa.Column("id", ID, primary_key=True),
        sa.Column("key", sa.Text(), nullable=False, unique=True),
        sa.Column("name", sa.Text(), nullable=False),
    )
    op.create_table(
        "people",
        sa.Column("id", ID, primary_key=True),
        sa.Column("opted_out_at", MS),
        sa.Column("opted_out_by", sa.Text()),
        sa.Column("source_opted_out", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("hold_until", MS),
        sa.Column("quarantine_until", MS),
    )
    op.create_table(
        "identities",
        sa.Column("id", ID, primary_key=True),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("email", sa.Text()),
        sa.Column("address_hash", sa.LargeBinary()),
        sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("company_id", ID, sa.ForeignKey("companies.id")),
        sa.Column("first_name", sa.Text()),
        sa.Column("last_name", sa.Text()),
        sa.Column("language", sa.Text()),
        sa.Column("country", sa.Text()),
        sa.Column("time_zone", sa.Text()),
        sa.Column("phone", sa.Text()),
        sa.Column("owner", sa.Text()),
        sa.Column("customer_since", MS),
        sa.Column("opted_out", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("last_surveyed_seen", sa.Text()),
        sa.Column("hold_until", MS),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("nps_seen", sa.JSON()),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("gone_at", MS),
        sa.UniqueConstraint("connection_id", "external_id", name="uq_identities_record"),
    )
    op.create_index("ix_identities_address", "identities", ["address_hash"])
    op.create_index("ix_identities_company", "identities", ["company_id", "person_id"])
    op.create_index("ix_identities_person", "identities", ["person_id"])
    op.create_table(
        "link_candidates",
        sa.Column("id", ID, primary_key=True),
        sa.Column("identity_id", ID, sa.ForeignKey("identities.id"), nullable=False),
        sa.Column("other_identity_id", ID, sa.ForeignKey("identities.id"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="open"),
        sa.Column("created_at", MS, nullable=False),
        sa.UniqueConstraint("identity_id", "other_identity_id", name="uq_link_candidates_pair"),
    )
    op.create_table(
        "tombstones",
        sa.Column("address_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("opted_out_at", MS),
        sa.Column("last_message_at", MS),
        sa.Column("quarantine_until", MS),
        sa.Column("erased", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", MS, nullable=False),
    )
    op.create_table(
        "suppressions",
        sa.Column("address_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, server_default=""),
        sa.Column("source", sa.Text(), nullable=False, server_default=""),
        sa.Column("created_at", MS, nullable=False),
    )
    op.create_table(
        "message_guard",
        sa.Column("identity_id", ID, sa.ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("last_message_at", MS, nullable=False),
    )


def _asking() -> None:
    """Asking."""
    op.create_table(
        "campaigns",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="active"),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("anonymous", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("digest", sa.Text()),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("changed_at", MS, nullable=False),
    )
    op.create_table(
        "waves",
        sa.Column("id", ID, primary_key=True),
        sa.Column("campaign_id", ID, sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="open"),
        sa.Column("opens_at", MS, nullable=False),
        sa.Column("ends_at", MS, nullable=False),
        sa.Column("planned_at", MS),
        sa.Column("next_plan_at", MS),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("unsealed_at", MS),
        sa.UniqueConstraint("campaign_id", "number", name="uq_waves_number"),
    )
    op.create_table(
        "decisions",
        sa.Column("campaign_id", ID, primary_key=True),
        sa.Column("person_id", ID, primary_key=True),
        sa.Column("wave_id", ID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text()),
        sa.Column("until", MS),
        sa.Column("changed_at", MS, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "touches",
        sa.Column("id", ID, primary_key=True),
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("person_id", ID),
        sa.Column("identity_id", ID),
        sa.Column("company_id", ID),
        sa.Column("campaign_id", ID, sa.ForeignKey("campaigns.id")),
        sa.Column("wave_id", ID, sa.ForeignKey("waves.id")),
        sa.Column("type", sa.Text(), nullable=False, server_default="nps"),
        sa.Column("source", sa.Text(), nullable=False, server_default="boucle"),
        sa.Column("origin", sa.Text(), nullable=False, server_default=""),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("address_hash", sa.LargeBinary()),
        sa.Column("reserved_at", MS),
        sa.Column("claimed_at", MS),
        sa.Column("handed_over_at", MS),
        sa.Column("asked_at", MS, nullable=False),
        sa.Column("asked_local_date", sa.Text()),
        sa.Column("delivered_at", MS),
        sa.Column("opened_at", MS),
        sa.Column("window_closes_at", MS),
        sa.Column("answered_at", MS),
        sa.Column("answered", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("declined_at", MS),
        sa.Column("returned_at", MS),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("detail", sa.Text(), nullable=False, server_default=""),
        sa.Column("reminded_at", MS),
        sa.Column("event_at", MS),
        sa.Column("clamped", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.create_index("ix_touches_address", "touches", ["address_hash"])
    op.create_index("ix_touches_campaign", "touches", ["campaign_id", "reserved_at"])
    op.create_index(
        "ix_touches_clock",
        "touches",
        [
            "person_id",
            "asked_at",
            "state",
            "type",
            "campaign_id",
            "answered_at",
            "declined_at",
            "window_closes_at",
            "answered",
            "asked_local_date",
        ],
    )
    op.create_index("ix_touches_company", "touches", ["company_id", "asked_at"])
    op.create_index(
        "ix_touches_returned",
        "touches",
        ["wave_id"],
        sqlite_where=sa.text("state = 'returned'"),
        postgresql_where=sa.text("state = 'returned'"),
    )
    op.create_index(
        "ix_touches_sent",
        "touches",
        ["campaign_id", "claimed_at"],
        sqlite_where=sa.text("claimed_at IS NOT NULL"),
        postgresql_where=sa.text("claimed_at IS NOT NULL"),
    )
    op.create_index(
        "uq_touches_wave_person",
        "touches",
        ["wave_id", "person_id"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('returned', 'answered')"),
        postgresql_where=sa.text("state NOT IN ('returned', 'answered')"),
    )
    op.create_table(
        "survey_links",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("touch_id", ID, sa.ForeignKey("touches.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_survey_links_touch_id", "survey_links", ["touch_id"])
    op.create_table(
        "responses",
        sa.Column("id", ID, primary_key=True, autoincrement=False),
        sa.Column("campaign_id", ID, sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("wave_id", ID, sa.ForeignKey("waves.id")),
        sa.Column("touch_id", ID),
        sa.Column("person_id", ID),
        sa.Column("identity_id", ID),
        sa.Column("answer_hash", sa.LargeBinary(), unique=True),
        sa.Column("score", sa.SmallInteger()),
        sa.Column("comment", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("sealed", sa.LargeBinary()),
        sa.Column("language", sa.Text()),
        sa.Column("channel", sa.Text(), nullable=False, server_default="web"),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("late", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("mismatch", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("attributes", sa.JSON()),
        sa.Column("answered_at", MS),
        sa.Column("updated_at", MS),
    )
    op.create_index("ix_responses_campaign", "responses", ["campaign_id", "answered_at"])
    op.create_index("ix_responses_person", "responses", ["person_id"])
    op.create_index("ix_responses_touch", "responses", ["touch_id"])
    op.create_table(
        "response_versions",
        sa.Column("response_id", ID, sa.ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("score", sa.SmallInteger()),
        sa.Column("comment", sa.Text()),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("at", MS, nullable=False),
    )
    op.create_table(
        "hits",
        sa.Column("id", ID, primary_key=True),
        sa.Column("link_hash", sa.LargeBinary(), nullable=False),
        sa.Column("at", MS, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("score", sa.SmallInteger()),
        sa.Column("honeypot", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("agent", sa.Text(), nullable=False, server_default=""),
        sa.Column("network", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("ix_hits_at", "hits", ["at"])
    op.create_index("ix_hits_link", "hits", ["link_hash", "at"])
    op.create_table(
        "follow_ups",
        sa.Column("id", ID, primary_key=True),
        sa.Column("public_id", sa.Text(), nullable=False, unique=True),
        sa.Column("response_id", ID, sa.ForeignKey("responses.id"), nullable=False),
        sa.Column("person_id", ID),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False, server_default=""),
        sa.Column("due_at", MS),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("changed_at", MS, nullable=False),
        sa.Column("closed_at", MS),
    )
    op.create_index(
        "ix_follow_ups_open",
        "follow_ups",
        ["person_id"],
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "segments",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("config", sa.JSON(), nullable=False),
    )
    op.create_table(
        "segment_members",
        sa.Column("segment_id", ID, sa.ForeignKey("segments.id"), primary_key=True),
        sa.Column("person_id", ID, primary_key=True),
        sa.Column("since", MS, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "incidents",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("campaign_id", ID),
        sa.Column("connection_id", ID),
        sa.Column("company_id", ID),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", MS, nullable=False),
        sa.Column("closed_at", MS),
    )
    op.create_index(
        "ix_incidents_open",
        "incidents",
        ["kind"],
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def _in_and_out() -> None:
    """In and out."""
    op.create_table(
        "inbox",
        sa.Column("id", ID, primary_key=True),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, server_default="ready"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due_at", MS, nullable=False),
        sa.Column("lease_until", MS),
        sa.Column("fence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("error", sa.Text(), nullable=False, server_default=""),
        sa.Column("received_at", MS, nullable=False),
        sa.UniqueConstraint("connection_id", "delivery_id", name="uq_inbox_delivery"),
    )
    op.create_index("ix_inbox_due", "inbox", ["state", "due_at"])
    op.create_table(
        "events",
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("applied_at", MS, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", ID, primary_key=True),
        sa.Column("key", sa.Text(), nullable=False, unique=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("connection_id", ID, sa.ForeignKey("connections.id"), nullable=False),
        sa.Column("touch_id", ID),
        sa.Column("identity_id", ID),
        sa.Column("state", sa.Text(), nullable=False, server_default="ready"),
        sa.Column("due_at", MS, nullable=False),
        sa.Column("expires_at", MS),
        sa.Column("lease_until", MS),
        sa.Column("owner", sa.Text()),
        sa.Column("fence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("wanted_version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("done_version", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("payload", sa.JSON()),
        sa.Column("vendor_ref", sa.Text(), nullable=False, server_default=""),
        sa.Column("error", sa.Text(), nullable=False, server_default=""),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("done_at", MS),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["connection_id", "kind", "state", "due_at"],
        sqlite_where=sa.text("state IN ('ready', 'sending')"),
        postgresql_where=sa.text("state IN ('ready', 'sending')"),
    )
    op.create_index(
        "ix_deliveries_identity",
        "deliveries",
        ["identity_id"],
        sqlite_where=sa.text("identity_id IS NOT NULL"),
        postgresql_where=sa.text("identity_id IS NOT NULL"),
    )
    op.create_index("ix_deliveries_touch", "deliveries", ["touch_id"])


def _keeping_house() -> None:
    """Keeping house."""
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease_until", MS, nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("finished_at", MS),
        sa.Column("due_at", MS, nullable=False, server_default="0"),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", MS, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, server_default=""),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_table(
        "users",
        sa.Column("id", ID, primary_key=True),
        sa.Column("email", sa.Text(), nullable=False, unique=True),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("disabled_at", MS),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", MS, nullable=False),
        sa.Column("last_used_at", MS),
        sa.Column("revoked_at", MS),
    )
