"""The audience grammar: which records a campaign addresses.

    audience = { country = ["FR", "BE"], plan = { not = ["trial"] }, seats = { min = 5 } }

A value or a list is any-of. `not`, `min`, `max`, `before`, `after`, `contains`, `exists` may be combined; all must
hold. A missing attribute matches only `not` and `exists = false`. Text is compared case-folded; numbers written as
text count as numbers for min and max; before and after take ISO dates and exclude the day itself.
`core.storage.audience_sql` says the same in SQL; a property test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any


class Operator(StrEnum):
    """What a condition asks of a value."""

    ANY_OF = "any_of"
    NOT = "not"
    MIN = "min"
    MAX = "max"
    BEFORE = "before"
    AFTER = "after"
    CONTAINS = "contains"
    EXISTS = "exists"


#: Fields of a record that are columns; every other name is looked up in its attributes.
FIELDS = (
    "email",
    "first_name",
    "last_name",
    "company",
    "language",
    "country",
    "time_zone",
    "phone",
    "owner",
    "customer_since",
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one field. `operand`: tuple of folded texts, float, ISO date text, or bool, by operator."""

    field: str
    operator: Operator
    operand: tuple[str, ...] | float | str | bool


@dataclass(frozen=True, slots=True)
class Audience:
    """All of these must hold."""

    conditions: tuple[Condition, ...] = ()


def fold(value: object) -> str:
    """Text as it is compared: case-folded, stripped; true and false as words; whole numbers without `.0`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def parse_audience(raw: Mapping[str, Any]) -> Audience:
    """The audience of a workspace file. Raises ValueError with a sentence naming the field."""
    conditions: list[Condition] = []
    for name, wanted in raw.items():
        if isinstance(wanted, Mapping):
            if not wanted:
                raise ValueError(f"audience.{name} is empty; give it a condition")
            conditions.extend(_condition(name, operator, operand) for operator, operand in wanted.items())
        else:
            conditions.append(Condition(name, Operator.ANY_OF, _texts(name, wanted)))
    return Audience(tuple(conditions))


def _condition(name: str, operator: str, operand: Any) -> Condition:
    match operator:
        case "not" | "contains":
            return Condition(name, Operator(operator), _texts(name, operand))
        case "min" | "max":
            if isinstance(operand, bool) or not isinstance(operand, int | float) or not math.isfinite(operand):
                raise ValueError(f"audience.{name}.{operator} must be a number, not {operand!r}")
            return Condition(name, Operator(operator), float(operand))
        case "before" | "after":
            return Condition(name, Operator(operator), _day(name, operator, operand))
        case "exists":
            if not isinstance(operand, bool):
                raise ValueError(f"audience.{name}.exists must be true or false, not {operand!r}")
            return Condition(name, Operator.EXISTS, operand)
    raise ValueError(
        f"audience.{name} has no condition {operator!r}; use not, min, max, before, after, contains or exists"
    )


def _texts(name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(item, str | int | float | bool) for item in values):
        raise ValueError(f"audience.{name} must be a value or a list of values, not {value!r}")
    return tuple(fold(item) for item in values)


def _day(name: str, operator: str, value: Any) -> str:
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        raise ValueError(f"audience.{name}.{operator} must be a date like 2026-12-01, not {value!r}") from error


def matches(audience: Audience, record: Mapping[str, Any]) -> bool:
    """Whether a record (fields and attributes in one mapping; None or "" is missing) is addressed."""
    return all(_holds(condition, record.get(condition.field)) for condition in audience.conditions)


def _holds(condition: Condition, value: Any) -> bool:
    operator, operand = condition.operator, condition.operand
    if value is None or fold(value) == "":
        return operator is Operator.NOT or (operator is Operator.EXISTS and operand is False)
    if operator is Operator.EXISTS:
        return bool(operand)
    if operator in (Operator.MIN, Operator.MAX):
        return _compare_number(operator, value, float(operand) if isinstance(operand, float) else math.nan)
    if operator in (Operator.BEFORE, Operator.AFTER):
        return _compare_day(operator, value, str(operand))
    texts = operand if isinstance(operand, tuple) else ()
    folded = fold(value)
    if operator is Operator.CONTAINS:
        return any(text in folded for text in texts)
    return (folded in texts) is (operator is Operator.ANY_OF)


def _compare_number(operator: Operator, value: Any, bound: float) -> bool:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # true is a word here, no 1
    except (TypeError, ValueError):
        return False
    return number >= bound if operator is Operator.MIN else number <= bound


def _compare_day(operator: Operator, value: Any, bound: str) -> bool:
    try:
        day = date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return False
    return day < bound if operator is Operator.BEFORE else day > bound
