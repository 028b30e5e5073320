"""Every kind keeps every promise of every capability it has.

The classes are made from the registry: a connector takes part by being listed, and one that lacks the harness of a
capability it has fails. A capability whose suite has not been written yet must not be had by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from connectors import CONNECTORS, load
from core.ports import capabilities


def _snake(capability: str) -> str:
    """`contact_source` of ContactSource."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", capability).lower()


def _suite(capability: str) -> type:
    module = import_module(f"tests.conformance.{_snake(capability)}")
    return getattr(module, f"{capability}Conformance")  # type: ignore[no-any-return]


def _harness_module(kind: str) -> ModuleType:
    return import_module(f"tests.connectors.harness_{kind}")


def _case(kind: str, capability: str) -> type:
    """The suite of a capability with the harness of a kind."""
    make = getattr(_harness_module(kind), _snake(capability))

    def harness(self: Any, tmp_path: Path) -> Iterator[Any]:
        with make(tmp_path) as made:
            yield made

    name = f"Test{kind.title().replace('_', '')}Is{capability}"
    return type(name, (_suite(capability),), {"harness": pytest.fixture(harness), "__module__": __name__})


PAIRS = [(kind, capability) for kind in sorted(CONNECTORS) for capability in capabilities(load(kind))]


@pytest.mark.parametrize(("kind", "capability"), PAIRS)
def test_takes_part(kind: str, capability: str) -> None:
    assert hasattr(_harness_module(kind), _snake(capability)), (
        f"tests/connectors/harness_{kind}.py needs a function {_snake(capability)}"
    )
    assert any(name.startswith("test_") for name in dir(_suite(capability)))


def test_everybody_can_do_something() -> None:
    assert {kind for kind, _ in PAIRS} == set(CONNECTORS)


for _kind, _capability in PAIRS:
    if hasattr(_harness_module(_kind), _snake(_capability)):
        _made = _case(_kind, _capability)
        globals()[_made.__name__] = _made
        del _made
