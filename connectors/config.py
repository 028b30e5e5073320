"""A connector's configuration, declared once as a frozen pydantic model; everything else is read off that model.

The model validates; from its fields come the admin form, CLI options, JSON Schema, the rows of the documentation, and
which values are secrets. A field is declared with `setting(...)`, a secret has the type `SecretStr`, a file `Path`.

In a workspace file a secret is never written out but referred to: `env:NAME` or `file:PATH`. That is how it is stored,
too: `resolve_secrets` reads the value when the connector is built.
"""

from __future__ import annotations

import ipaddress
import socket
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from core.errors import Misconfigured

MASK = "••••••••"
PRIVATE = "{host} is an address inside this network; set BOUCLE_ALLOW_PRIVATE_ENDPOINTS=1 if that is meant"
LARGEST_SECRET_FILE = 64 * 1024


class ConnectorConfig(BaseModel):
    """Base of every configuration: unknown keys are refused, nothing changes, errors never repeat what was typed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True, validate_default=True
    )


def setting(
    default: Any = PydanticUndefined,
    *,
    title: str,
    help: str = "",
    group: str = "",
    example: str = "",
    **limits: Any,
) -> Any:
    """A field of a configuration. `limits` are pydantic's own (`ge`, `le`, `min_length`, ...)."""
    extra: dict[str, Any] = {key: value for key, value in (("group", group), ("example", example)) if value}
    # a factory's values differ per instance: pydantic would share a mutable default otherwise
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return Field(title=title, description=help or None, json_schema_extra=extra or None, **factory, **limits)


# --- reading a model ----------------------------------------------------------------------------------------------


class Input(StrEnum):
    """How a value is entered."""

    TEXT = "text"
    SECRET = "secret"
    INTEGER = "integer"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"
    LIST = "list"
    MAPPING = "mapping"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class ConfigField:
    """One setting as forms, command line and documentation show it. `default` is JSON, None if there is none."""

    name: str
    title: str
    help: str
    group: str
    input: Input
    required: bool
    default: Any = None
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    example: str = ""

    @property
    def secret(self) -> bool:
        """Never shown, never logged, encrypted where it is stored."""
        return self.input is Input.SECRET

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for the value in help texts."""
        return "|".join(self.options) if self.options else self.input.value.upper()

    @property
    def repeatable(self) -> bool:
        """The option may be given several times (`KEY=VALUE` for mappings)."""
        return self.input in (Input.LIST, Input.MAPPING)


def config_fields(model: type[BaseModel]) -> tuple[ConfigField, ...]:
    """Every setting, in the order declared: what forms, CLI options and documentation are made of."""
    return tuple(_field_of(name, info) for name, info in model.model_fields.items())


def secret_names(model: type[BaseModel]) -> frozenset[str]:
    """The settings that are secrets."""
    return frozenset(field.name for field in config_fields(model) if field.secret)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of the configuration, with title, help and group of every setting."""
    return model.model_json_schema()


def docs_rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """(name, what may stand there, default, help) of every setting, as text."""
    return [
        (
            field.name,
            "secret (`env:NAME` or `file:PATH`)" if field.secret else " | ".join(field.options) or field.input.value,
            "required" if field.required else "" if field.default in (None, "", {}, []) else str(field.default),
            f"{field.title}. {field.help}".removesuffix(" "),
        )
        for field in config_fields(model)
    ]


def masked(config: BaseModel | Mapping[str, Any], model: type[BaseModel] | None = None) -> dict[str, Any]:
    """The values as JSON, to be shown: a secret is a mask, a reference to one is not secret and stays."""
    if isinstance(config, BaseModel):
        model, values = type(config), config.model_dump(mode="json")
    else:
        values = dict(config)
    hidden = secret_names(model) if model else frozenset()
    return {name: _mask(value) if name in hidden else value for name, value in values.items()}


def _mask(value: Any) -> Any:
    return value if value is None or value == "" or is_reference(value) else MASK


def _field_of(name: str, info: FieldInfo) -> ConfigField:
    annotation = _without_none(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    required = info.is_required()
    return ConfigField(
        name=name,
        title=info.title or name.replace("_", " ").capitalize(),
        help=info.description or "",
        group=str(extra.get("group", "")),
        input=_input_of(annotation),
        required=required,
        default=None if required else _plain(info.get_default(call_default_factory=True)),
        options=_options_of(annotation),
        minimum=_limit(info, Ge, Gt),
        maximum=_limit(info, Le, Lt),
        example=str(extra.get("example", "")),
    )


def _without_none(annotation: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


_INPUTS: Sequence[tuple[type, Input]] = (
    (SecretStr, Input.SECRET),
    (bool, Input.SWITCH),
    (int, Input.INTEGER),
    (float, Input.NUMBER),
    (Path, Input.PATH),
    (Enum, Input.CHOICE),
    (str, Input.TEXT),
)


def _input_of(annotation: Any) -> Input:
    origin = get_origin(annotation)
    if origin is Literal:
        return Input.CHOICE
    container = origin if isinstance(origin, type) else annotation
    if isinstance(container, type):
        if issubclass(container, Mapping):
            return Input.MAPPING
        if issubclass(container, list | tuple | set | frozenset):
            return Input.LIST
        # an enum of texts is a choice before it is a text
        if issubclass(container, Enum):
            return Input.CHOICE
        for kind, entered in _INPUTS:
            if issubclass(container, kind):
                return entered
    return Input.TEXT


def _options_of(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def _limit(info: FieldInfo, *kinds: type) -> float | None:
    for rule in info.metadata:
        for kind in kinds:
            if isinstance(rule, kind):
                return float(getattr(rule, kind.__name__.lower()))
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return value


# --- what is wrong with values ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: the path of the setting, and one sentence that never repeats a secret."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(str(part) for part in self.path)}: {self.message}" if self.path else self.message


def problems(error: ValidationError, model: type[BaseModel] | None = None) -> list[Problem]:
    """Everything pydantic found, as sentences for the person who wrote the values."""
    known = tuple(model.model_fields) if model else ()
    return [
        Problem(
            tuple(part for part in one["loc"] if part != "[key]"),
            _sentence(one["type"], one["msg"], one.get("ctx"), known),
        )
        for one in error.errors(include_url=False, include_input=False)
    ]


def _sentence(kind: str, message: str, context: Mapping[str, Any] | None, known: Sequence[str]) -> str:
    if kind == "extra_forbidden":
        return "there is no such setting" + (f"; there are {', '.join(known)}" if known else "")
    if kind == "missing":
        return "is required"
    if kind == "string_pattern_mismatch":
        return "holds a character that cannot stand there, or is empty"
    if kind == "literal_error" and context:
        return f"must be one of {context['expected']}"
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    words = message.replace("Input should", "should")
    return words[:1].lower() + words[1:]


def read_config(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """The validated configuration. Raises Misconfigured with every problem in one message, `field` the first."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = problems(error, model)
        field = str(found[0].path[0]) if found and found[0].path else ""
        raise Misconfigured("; ".join(str(problem) for problem in found), field=field) from None


# --- secrets by reference -----------------------------------------------------------------------------------------


def is_reference(value: Any) -> bool:
    """Whether a value only says where a secret is: `env:NAME` or `file:PATH`."""
    return isinstance(value, str) and value.startswith(("env:", "file:")) and bool(value.partition(":")[2].strip())


def check_references(values: Mapping[str, Any], model: type[BaseModel]) -> list[Problem]:
    """Secrets that are written out where only references may stand, as in a workspace file."""
    return [
        Problem((name,), "is a secret: refer to it as env:NAME or file:PATH instead of writing it here")
        for name in sorted(secret_names(model) & set(values))
        if values[name] not in (None, "") and not is_reference(values[name])
    ]


def resolve_secrets(
    values: Mapping[str, Any], model: type[BaseModel], env: Mapping[str, str], base_dir: Path
) -> dict[str, Any]:
    """The values with every reference replaced by the secret it names; others are left as they are.

    A file's secret is its text without the line end. Relative paths start at `base_dir`. Raises Misconfigured.
    """
    hidden = secret_names(model)
    return {
        name: _resolve(name, value, env, base_dir) if name in hidden and is_reference(value) else value
        for name, value in values.items()
    }


def _resolve(name: str, reference: str, env: Mapping[str, str], base_dir: Path) -> str:
    source, _, where = reference.partition(":")
    where = where.strip()
    if source == "env":
        value = env.get(where, "")
        if not value:
            raise Misconfigured(f"{name}: the environment variable {where} is not set", field=name)
        return value
    path = base_dir / Path(where).expanduser()
    try:
        if path.stat().st_size > LARGEST_SECRET_FILE:
            raise Misconfigured(f"{name}: {path} is too large to be a secret", field=name)
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise Misconfigured(f"{name}: the secret in {path} cannot be read: {why}", field=name) from None
    if not value:
        raise Misconfigured(f"{name}: {path} is empty", field=name)
    return value


def absolute_paths(values: Mapping[str, Any], model: type[BaseModel], base_dir: Path) -> dict[str, Any]:
    """The values with every path, also that of a `file:` reference, made absolute from `base_dir`."""
    kinds = {field.name: field.input for field in config_fields(model)}
    return {name: _absolute(kinds.get(name), value, base_dir) for name, value in values.items()}


def _absolute(kind: Input | None, value: Any, base_dir: Path) -> Any:
    if kind is Input.PATH and isinstance(value, str | Path) and str(value):
        return str((base_dir / Path(value).expanduser()).absolute())
    if kind is Input.SECRET and isinstance(value, str) and value.startswith("file:") and is_reference(value):
        return "file:" + str((base_dir / Path(value.removeprefix("file:").strip()).expanduser()).absolute())
    return value


# --- where a connection may go ------------------------------------------------------------------------------------


def is_private(address: str) -> bool:
    """Whether an IP address is this machine, this network, or no ordinary host of the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return not (mapped or ip).is_global or ip.is_multicast


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else; a name that does not resolve is not."""
    try:
        found = addresses_of(host)
    except OSError:
        return False
    return bool(found) and all(_plain_ip(address).is_loopback for address in found)


def check_endpoint(host_or_url: str, *, allow_private: bool) -> None:
    """Refuse a URL (or host) inside our own network, so that nobody makes this service talk to its neighbours.

    Raises Misconfigured, also for what is not http(s), carries a password, or does not resolve. For mail servers,
    which operators put into their own network on purpose, connectors do not ask here. A name may resolve differently a
    moment later: `HttpClient` looks again at the address it has connected to.
    """
    host = _host_of(host_or_url)
    try:
        found = addresses_of(host)
    except (OSError, UnicodeError):
        if allow_private:
            return  # it may come up later: the call will say
        raise Misconfigured(f"{host} does not resolve: check its spelling", field="base_url") from None
    if not allow_private and any(is_private(address) for address in found):
        raise Misconfigured(PRIVATE.format(host=host), field="base_url")


def _host_of(host_or_url: str) -> str:
    if "://" not in host_or_url:
        return host_or_url.strip("[]")
    try:
        parts = urlsplit(host_or_url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise Misconfigured("is no http or https address", field="base_url")
    if parts.username or parts.password:
        raise Misconfigured("the address must not carry a user name or password", field="base_url")
    return host


def addresses_of(host: str) -> list[str]:
    """Every IP address a host name has now. Raises OSError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _plain_ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip
