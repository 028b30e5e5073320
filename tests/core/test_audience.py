"""The audience grammar: who is addressed. The same in SQL: tests/storage/test_audience_sql.py."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from core.audience import matches, parse_audience

ADA: dict[str, Any] = {
    "country": "FR", "plan": "Pro", "seats": "12", "since": "2026-03-01", "beta": True, "note": "", "score": 9.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"country": "fr"}, True),
        ({"country": ["BE", "FR"]}, True),
        ({"country": ["BE"]}, False),
        ({"plan": {"not": ["trial"]}}, True),
        ({"plan": {"not": "PRO"}}, False),
        ({"seats": {"min": 12}}, True),
        ({"seats": {"min": 12.5}}, False),
        ({"seats": {"min": 5, "max": 12}}, True),
        ({"seats": {"max": 11}}, False),
        ({"seats": 12}, True),
        ({"plan": {"min": 1}}, False),
        ({"since": {"before": "2026-03-01"}}, False),
        ({"since": {"before": date(2026, 3, 2)}}, True),
        ({"since": {"after": "2026-02-28"}}, True),
        ({"since": {"after": "2026-03-01"}}, False),
        ({"plan": {"after": "2026-01-01"}}, False),
        ({"plan": {"contains": "RO"}}, True),
        ({"plan": {"contains": ["x", "p"]}}, True),
        ({"plan": {"contains": "x"}}, False),
        ({"plan": {"exists": True}}, True),
        ({"plan": {"exists": False}}, False),
        ({"beta": True}, True),
        ({"beta": "false"}, False),
        ({"score": 9}, True),
        ({"country": "FR", "plan": "pro", "seats": {"min": 1}}, True),
        ({"country": "FR", "plan": "team"}, False),
        ({}, True),
    ],
)
def test_a_record_is_addressed_when_all_conditions_hold(condition: dict[str, Any], expected: bool) -> None:
    assert matches(parse_audience(condition), ADA) is expected


@pytest.mark.parametrize("missing", ["nowhere", "note"])
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"not": ["x"]}, True),
        ({"exists": False}, True),
        ({"exists": True}, False),
        ({"min": 0}, False),
        ({"max": 0}, False),
        ({"before": "2030-01-01"}, False),
        ({"after": "1990-01-01"}, False),
        ({"contains": ""}, False),
        ([""], False),
        ("", False),
    ],
)
def test_what_is_missing_matches_only_not_and_exists_false(missing: str, condition: Any, expected: bool) -> None:
    assert matches(parse_audience({missing: condition}), ADA) is expected


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"plan": {}}, "audience.plan is empty"),
        ({"plan": {"like": "x"}}, "audience.plan has no condition 'like'; use not, min"),
        ({"seats": {"min": "five"}}, "audience.seats.min must be a number, not 'five'"),
        ({"seats": {"min": True}}, "must be a number"),
        ({"seats": {"max": float("nan")}}, "must be a number"),
        ({"since": {"before": "yesterday"}}, "audience.since.before must be a date like 2026-12-01, not 'yesterday'"),
        ({"plan": {"exists": "yes"}}, "audience.plan.exists must be true or false"),
        ({"plan": []}, "audience.plan must be a value or a list of values"),
        ({"plan": [["x"]]}, "audience.plan must be a value or a list of values"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_field(raw: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=".*" + sentence.replace("(", r"\(")):
        parse_audience(raw)
