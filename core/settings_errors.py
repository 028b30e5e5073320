"""What pydantic finds wrong with settings, as sentences for the person who wrote them."""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.workspace import Conflicts

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One thing wrong: the path of the key within the settings, and a sentence."""

    path: Path
    message: str


def validate(model: type[M], values: Mapping[str, Any]) -> tuple[M | None, list[Found]]:
    """The settings, or everything that is wrong with them.

    Types are taken literally (`"3"` is no number, `true` is no 1). Rules over several keys are checked even when some
    other key is wrong.
    """
    given = {key: _lists_to_tuples(value) for key, value in values.items()}
    try:
        return model.model_validate(given, strict=True), []
    except ValidationError as error:
        found = _all_found(model, error)
    if found and all(one.path for one in found):  # else the model as a whole was judged already
        found += _judged_together(model, given, found)
    return None, list(dict.fromkeys(found))


def _judged_together(model: type[BaseModel], given: Mapping[str, Any], found: list[Found]) -> list[Found]:
    """Rules over several keys, with what is wrong taken out and what is missing replaced by something harmless."""
    rest = dict(given)
    for one in found:
        rest = _without(rest, one.path)
    missing = [name for name, field in model.model_fields.items() if field.is_required() and name not in rest]
    fillers = {name: ("x",) if name == "source" else "x" for name in missing}
    try:
        model.model_validate({**fillers, **rest}, strict=True)
    except ValidationError as error:
        wrong = frozenset(str(one.path[0]) for one in found)
        return _all_found(model, error, wrong)
    return []


def _without(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values without the key at a path. Inside a list, where it is missing or the last one, more is taken out."""
    key, below = path[0], path[1:]
    inside = values.get(str(key))
    rest = {name: value for name, value in values.items() if name != key}
    if below and isinstance(inside, dict) and below[0] in inside:
        left = _without(inside, below)
        return {**rest, str(key): left} if left else rest
    return rest


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_lists_to_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _lists_to_tuples(item) for key, item in value.items()}
    return value


def _all_found(model: type[BaseModel], error: ValidationError, wrong: frozenset[str] = frozenset()) -> list[Found]:
    """`wrong`: keys that were found wrong before, so that a conflict which leans on one of them says nothing."""
    found: list[Found] = []
    for one in error.errors(include_url=False):
        path = tuple(one["loc"])
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, Conflicts):
            found += [Found((*path, *each.path), each.sentence) for each in cause.found if not each.leans_on & wrong]
        else:
            found.append(Found(path, _sentence(model, path, one)))
    return found


def _sentence(model: type[BaseModel], path: Path, error: ErrorDetails) -> str:
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        return f"there is no such key{did_you_mean(str(path[-1]), _keys_beside(model, path))}"
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind][0]} {context[_BOUNDS[kind][1]]:g}, not {_shown(given)}"
    if kind == "literal_error":
        return f"must be one of {context['expected']}, not {_shown(given)}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters long, not {len(str(given))}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return _pattern(str(context["pattern"]), given)
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind == "tuple_type" and path[-1:] == ("quiet_periods",):
        return "is a list of sections: write [[quiet_periods]], with two brackets, for each"
    for prefix, wanted in _TYPES.items():
        if kind.startswith(prefix):
            return f"must be {wanted}, not {_shown(given)}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {_shown(given)}"


_FIXED = {"missing": "is required", "finite_number": "must be a finite number"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_TYPES = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_": "text in quotes",
    "date_": "a date like 2026-12-01 (without quotes)",
    "time_": 'a time like "09:00"',
    "tuple_": "a list: [ ... ]",
    "dict_": "a table: { ... }",
    "model_": "a table: { ... }",
}


def _pattern(pattern: str, given: Any) -> str:
    if pattern.startswith("^#"):
        return f'must be a colour like "#1450d2", not {_shown(given)}'
    return f"{_shown(given)} does not have the right form"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, tuple):
        return "a list"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + '..."'


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean X?` if something known is written almost like it, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _keys_beside(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that may stand where the last part of a path stands."""
    current: Any = model
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        current = _model_in(current.model_fields[part].annotation if part in current.model_fields else None)
        if current is None:
            return []
    return [info.alias or name for name, info in current.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for part in get_args(annotation):
            found = None if part is Ellipsis else _model_in(part)
            if found is not None:
                return found
    return None
