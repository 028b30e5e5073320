"""What is due is found among the unfinished deliveries alone: the work of years must not slow down every sweep."""

from __future__ import annotations

import pytest
from sqlalchemy import TextClause

from core.storage import deliveries, sends, write_backs
from core.storage.store import Store

QUERIES = {
    "connections with work": deliveries._WITH_WORK,
    "claims": deliveries._CLAIMS,
    "due messages": sends._DUE,
    "overdue messages": sends._OVERDUE,
    "due write-backs": write_backs._DUE,
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_only_unfinished_deliveries_are_looked_at(store: Store, query: TextClause) -> None:
    values = dict.fromkeys(query._bindparams, 1)
    with store.read() as tx:
        plan = [row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query.text}", values)]
    used = [step for step in plan if "deliveries" in step or " d " in f"{step} "]
    assert used
    assert all("ix_deliveries_due" in step for step in used), plan
