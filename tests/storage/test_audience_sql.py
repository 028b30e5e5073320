"""The audience in SQL addresses whom `core.audience.matches` does, for any record and any condition."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from core.audience import matches, parse_audience
from core.clock import DAY_MS, FixedClock
from core.frequency import limits
from core.storage import schema
from core.storage.audience_sql import audience_clause
from core.storage.people_facts import load_facts
from core.storage.store import Store
from core.workspace import Campaign, Quarantine
from tests.ledger import add_campaign, add_company, add_connection, add_person

texts = st.sampled_from(
    ["", " ", "pro", "PRO", "Straße", "STRASSE", "éclair", "É", "12", "12.0", "1e3", "-4", "nan", "true", "100%_", "_",
     "2026-03-01", "2026-03-01T10:00:00Z", "1969-12-31", "2026-3-1"]
)  # fmt: skip
days = st.dates(date(1960, 1, 1), date(2030, 1, 1)).map(str)
values = st.one_of(st.none(), texts, st.integers(-5, 2000), st.booleans(), st.sampled_from([9.0, 9.5, -0.5, 1e300]))
fields = st.sampled_from(["plan", "country", "company", "email", "customer_since"])
several = st.one_of(texts, st.integers(-5, 20), st.booleans(), st.lists(texts, min_size=1, max_size=3))
conditions = st.one_of(
    several,
    st.fixed_dictionaries({"not": several}),
    st.fixed_dictionaries({"contains": several}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"min": st.integers(-10, 50)}),
    st.fixed_dictionaries({"max": st.floats(-10, 2000)}),
    st.fixed_dictionaries({"before": days}),
    st.fixed_dictionaries({"after": days, "not": texts}),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(fields, conditions, max_size=2),
    values,
    st.one_of(st.none(), texts),
    st.one_of(st.none(), st.integers(-4000, 21000)),
    st.booleans(),
)
def test_sql_addresses_whom_python_does(
    store: Store, clock: FixedClock, raw: dict[str, Any], plan: Any, country: str | None, since: int | None, has: bool
) -> None:
    audience = parse_audience(raw)
    with store.write() as tx:
        for table in reversed(schema.metadata.sorted_tables):
            tx.execute(delete(table))
        connection = add_connection(tx)
        add_campaign(tx)
        person, identity = add_person(
            tx,
            connection,
            attributes={} if plan is None else {"plan": plan},
            country=country,
            customer_since=None if since is None else since * DAY_MS,
            company_id=add_company(tx, "Éclair SA") if has else None,
        )
        found = tx.scalars(select(schema.identities.c.id).where(audience_clause(audience).is_(True))).all()
        campaign = Campaign(name="r", source=("crm",), sender="mail", every_days=90)
        facts = load_facts(
            tx, person, identity, limits(Quarantine(), campaign, 1), audience, ZoneInfo("UTC"), clock.now_ms()
        )
        row = dict(tx.execute(select(schema.identities)).mappings().one())
    assert (found == [identity]) is facts.in_audience
    if not raw:
        assert facts.in_audience and matches(audience, row)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "x.y", "$", "spaced name", "Société", "a\\b"])
def test_attributes_of_any_name_are_found(store: Store, name: str) -> None:
    with store.write() as tx:
        _, identity = add_person(tx, add_connection(tx), attributes={name: "Pro"})
        add_person(tx, 1, attributes={"plan": "Pro"})
        found = tx.scalars(select(schema.identities.c.id).where(audience_clause(parse_audience({name: "pro"})))).all()
    assert found == [identity]
