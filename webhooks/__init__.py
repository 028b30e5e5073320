"""What others say to Boucle: one receiver per kind, of the same name as its connector, imported on first use.

Packages of other people add kinds by the entry point group `boucle.receivers` (`kind = "module:Class"`); a kind listed
here is never replaced by one of theirs.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from core.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from webhooks.base import Receiver

ENTRY_POINTS = "boucle.receivers"

#: None of the kinds of this release is told anything: files and mail servers do not call.
RECEIVERS: dict[str, str] = {}


def kinds() -> tuple[str, ...]:
    """Every kind that may call us, sorted; nothing is imported."""
    return tuple(sorted({*RECEIVERS, *_added()}))


def load(kind: str) -> type[Receiver]:
    """The receiver of a kind. Raises NotFound if there is none, Misconfigured if an added one is not usable."""
    if kind in RECEIVERS:
        module, _, name = RECEIVERS[kind].partition(":")
        found = getattr(import_module(module), name)
    elif kind in _added():
        found = _load_added(_added()[kind])
    else:
        raise NotFound(f"nothing here listens to {kind}")
    return found  # type: ignore[no-any-return]


@cache
def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in RECEIVERS}


@cache
def _load_added(entry: EntryPoint) -> type[Receiver]:
    from webhooks.base import Receiver

    try:
        found = entry.load()
    except Exception as error:  # whatever somebody else's package does on import
        raise Misconfigured(f"the receiver {entry.name} ({entry.value}) cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Receiver)):
        raise Misconfigured(f"the receiver {entry.name} ({entry.value}) is no webhooks.base.Receiver")
    if getattr(found, "kind", None) != entry.name:
        raise Misconfigured(f"the receiver {entry.name} ({entry.value}) names another kind in its class")
    return found
