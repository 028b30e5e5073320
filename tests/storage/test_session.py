"""How connections of a session differ from the others."""

from __future__ import annotations

from core.storage.store import Store

WAITS, DOES_NOT = 2, 1  # PRAGMA synchronous: FULL, NORMAL


def test_commits_of_what_can_be_read_again_do_not_wait_for_the_disk_and_all_others_do(store: Store) -> None:
    with store.session(repeatable=True) as session, session.write() as tx:
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar() == DOES_NOT
    with store.session() as session, session.write() as tx:
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar() == WAITS
    for _ in range(5):  # whichever connection of the pool it is
        with store.write() as tx:
            assert tx.exec_driver_sql("PRAGMA synchronous").scalar() == WAITS
