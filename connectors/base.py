"""What every connector is: a kind, a configuration and one cheap call that proves both.

What a connector can do is told by the methods it has (`core.ports.capabilities`); nothing is declared twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from connectors.config import ConnectorConfig
from connectors.http import HttpClient
from core.errors import Unauthorized
from core.ports import Account, capabilities

C = TypeVar("C", bound=ConnectorConfig)


@runtime_checkable
class Credentials(Protocol):
    """What changes while a connection lives: access tokens, which expire and are rotated."""

    def get(self, name: str) -> str | None:
        """The present value, or None if there is none yet."""

    def refresh(self, fn: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Mapping[str, str]:
        """Replace the values by what `fn` makes of the present ones, once however many workers ask.

        The lock it holds is shared by all workers of the connection. `fn` is given the values as they are after the
        lock was taken, so that it can see that somebody else has just refreshed them and return them unchanged. New
        values are committed before this returns: a rotated refresh token that was not kept is lost for ever.
        """


class StaticCredentials:
    """Credentials of connections whose secrets never rotate, and of tests: a dictionary of this process."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})
        self._lock = threading.Lock()

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def refresh(self, fn: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Mapping[str, str]:
        with self._lock:
            self._values = dict(fn(dict(self._values)))
            return dict(self._values)

    def require(self, name: str) -> str:
        """The present value. Raises Unauthorized."""
        value = self._values.get(name)
        if not value:
            raise Unauthorized(f"there is no {name} for this connection: connect it again")
        return value

    def __repr__(self) -> str:
        return f"StaticCredentials({', '.join(sorted(self._values))})"


class Connector(Generic[C]):
    """Speaks to one configured account. Made per connection and used by one thread at a time.

    Subclasses set `kind` (the slug used everywhere), `title`, `docs_url` and `config_class`, implement `check`, and
    implement capabilities of `core.ports` by having their methods. Making one opens nothing.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    docs_url: ClassVar[str] = ""
    #: What its behaviour was tried against, in a few words for docs/connectors.md.
    proved_against: ClassVar[str] = ""
    config_class: ClassVar[type[ConnectorConfig]]

    def __init__(self, config: C, http: HttpClient, credentials: Credentials) -> None:
        self.config = config
        self.http = http
        self.credentials = credentials

    def check(self) -> Account:
        """The cheapest call that needs the credentials. `Account.id` names the rate bucket all workers share.

        Raises Unauthorized, Misconfigured or Unavailable.
        """
        raise NotImplementedError

    def rate_per_second(self) -> float | None:
        """How often the account may be called, shared by all workers; None: as fast as it goes."""
        return None

    def reaches_outside(self) -> bool:
        """Whether anything leaves this machine: if so, a moved clock (BOUCLE_CLOCK_OFFSET) is refused."""
        return True

    def close(self) -> None:
        """Give back what is open. The connector may be used again and opens what it needs."""
        self.http.close()

    def __enter__(self) -> Connector[C]:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(capabilities(type(self)))}>"
