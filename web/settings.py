"""The settings of a process: read from the environment, then from `.env` in the checkout. The environment wins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from core.errors import Invalid

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORT = 8000
YES, NO = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. `instance` is the folder of state; `secret_keys` is empty where a key file is used."""

    instance: Path
    database_url: str = field(repr=False)  # may hold a password
    base_url: str
    port: int = DEFAULT_PORT
    secret_keys: str = field(default="", repr=False)
    allow_private_endpoints: bool = False
    heartbeat_url: str = field(default="", repr=False)  # its path is a secret of the monitor
    clock_offset: float = 0.0
    embedded_worker: bool = False

    @property
    def key_file(self) -> Path:
        return self.instance / "secret_keys"


def load(environ: Mapping[str, str], env_file: Path = ROOT / ".env") -> Settings:
    """The settings. Raises Invalid with one sentence that names the variable."""
    values = {**_env_file(env_file), **environ}
    instance = Path(values.get("BOUCLE_INSTANCE") or "instance").expanduser()
    instance = instance if instance.is_absolute() else ROOT / instance
    port = _port(values)
    return Settings(
        instance=instance,
        database_url=values.get("DATABASE_URL") or f"sqlite:///{instance / 'boucle.db'}",
        base_url=_url(values, "BOUCLE_BASE_URL") or f"http://127.0.0.1:{port}",
        port=port,
        secret_keys=values.get("BOUCLE_SECRET_KEYS", "").strip(),
        allow_private_endpoints=_switch(values, "BOUCLE_ALLOW_PRIVATE_ENDPOINTS"),
        heartbeat_url=_url(values, "BOUCLE_HEARTBEAT_URL", whole=True),
        clock_offset=_seconds(values, "BOUCLE_CLOCK_OFFSET"),
        embedded_worker=_switch(values, "BOUCLE_EMBEDDED_WORKER"),
    )


def _env_file(path: Path) -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None


def _port(values: Mapping[str, str]) -> int:
    text = values.get("PORT") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise Invalid(f'PORT is "{text}"; it must be a number from 1 to 65535')
    return int(text)


def _switch(values: Mapping[str, str], name: str) -> bool:
    text = values.get(name, "").strip().lower()
    if text not in YES | NO:
        raise Invalid(f'{name} is "{text}"; set it to 1, or leave it out')
    return text in YES


def _seconds(values: Mapping[str, str], name: str) -> float:
    text = values.get(name, "").strip()
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) <= 100 * 366 * 86400:
        raise Invalid(f'{name} is "{text}"; it must be a number of seconds')
    return seconds


def _url(values: Mapping[str, str], name: str, *, whole: bool = False) -> str:
    """An address. `whole`: as it stands, query and all; else one to put paths behind."""
    text = values.get(name, "").strip()
    text = text if whole else text.rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (whole or not (parts.query or parts.fragment))
        )
    except ValueError:
        good = False
    if not good:
        raise Invalid(f"{name} must be an address like https://nps.example.com")
    return text
