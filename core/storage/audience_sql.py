"""The audience grammar in SQL: says the same as `core.audience.matches`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Text, and_, func, literal, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from core.audience import Audience, Condition, Operator
from core.storage.schema import companies, identities

_COLUMNS: dict[str, Any] = {
    "email": identities.c.email,
    "first_name": identities.c.first_name,
    "last_name": identities.c.last_name,
    "company": select(companies.c.name).where(companies.c.id == identities.c.company_id).scalar_subquery(),
    "language": identities.c.language,
    "country": identities.c.country,
    "time_zone": identities.c.time_zone,
    "phone": identities.c.phone,
    "owner": identities.c.owner,
    "customer_since": func.boucle_day_of_ms(identities.c.customer_since),
}


def audience_clause(audience: Audience) -> ColumnElement[bool]:
    """The condition on `identities` under which a record is addressed."""
    if not audience.conditions:
        return true()
    return and_(*(_clause(condition) for condition in audience.conditions))


def _value(field: str) -> Any:
    return _COLUMNS[field] if field in _COLUMNS else attribute(identities.c.attributes, literal(field, Text))


class attribute(FunctionElement[Any]):
    """The value of an attribute, NULL if there is none: true and false as words, everything else as it is."""

    type = NullType()
    inherit_cache = True
    name = "attribute"


@compiles(attribute)
def _attribute(element: Any, compiler: Any, **options: Any) -> str:
    attributes, name = (compiler.process(part, **options) for part in element.clauses)
    return f"({attributes} ->> {name})"


@compiles(attribute, "sqlite")
def _attribute_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # not by a path such as $."name": it cannot name a quote, and before SQLite 3.45 no letter that JSON escapes
    attributes, name = (compiler.process(part, **options) for part in element.clauses)
    value = "CASE WHEN type IN ('true', 'false') THEN type ELSE value END"
    return f"(SELECT {value} FROM json_each({attributes}) WHERE key = {name})"


def _clause(condition: Condition) -> ColumnElement[bool]:
    value = _value(condition.field)
    folded = func.boucle_fold(value, type_=Text)
    operand = condition.operand
    texts = operand if isinstance(operand, tuple) else ()
    match condition.operator:
        case Operator.ANY_OF:
            return folded.in_(texts)
        case Operator.NOT:
            return or_(folded.is_(None), folded.not_in(texts))
        case Operator.CONTAINS:
            return or_(*(folded.contains(text, autoescape=True) for text in texts))
        case Operator.EXISTS:
            return folded.is_not(None) if operand else folded.is_(None)
        case Operator.MIN:
            return func.boucle_number(value) >= operand
        case Operator.MAX:
            return func.boucle_number(value) <= operand
        case Operator.BEFORE:
            return func.boucle_day(value, type_=Text) < operand
        case Operator.AFTER:
            return func.boucle_day(value, type_=Text) > operand
