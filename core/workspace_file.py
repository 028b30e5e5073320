"""The workspace file: TOML in, validated settings out, or every error at once, each with its path and line.

What the kinds of connections are and what their settings mean is asked of a `KindCatalogue`: the core knows no
connector. Connections that exist already may be named by a campaign without standing in the file again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from core.errors import Invalid
from core.settings_errors import Found, did_you_mean, validate
from core.toml_lines import line_index, line_of
from core.workspace import NAME, Campaign, Workspace

M = TypeVar("M", bound=BaseModel)
Keys = tuple[str | int, ...]

SECTIONS = ("workspace", "quarantine", "brakes", "quiet_periods", "connections", "campaigns")
#: Sections of their own in the file, parts of the workspace's settings.
PARTS = ("quarantine", "brakes", "quiet_periods")
LOGO_SUFFIXES = (".svg", ".png")
LARGEST_LOGO = 200_000
_SYNTAX = re.compile(r"^(?P<what>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.S)

_TUPLE = re.compile(r"\((?:'[^']*',? ?)+\)")  # as tomllib shows the name of a table
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class KindCatalogue(Protocol):
    """What there is to connect to."""

    def kinds(self) -> Sequence[str]:
        """Every kind that can be configured."""

    def capabilities(self, kind: str) -> Collection[str]:
        """What connections of a kind can do: names of the protocols of `core.ports`."""

    def problems(self, kind: str, config: Mapping[str, Any], folder: Path) -> Sequence[Found]:
        """Everything wrong with the settings of a connection; secrets must be references."""

    def at_home(self, kind: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The settings as they are stored: JSON, with paths made absolute from the file's folder."""

    def reaches_outside(self, kind: str, config: Mapping[str, Any]) -> bool:
        """Whether a connection with these settings speaks to anything but this machine."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """`[connections.NAME]`, validated; `config` is what is stored."""

    name: str
    kind: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """What a workspace file says."""

    workspace: Workspace
    connections: tuple[ConnectionSettings, ...] = ()
    campaigns: tuple[Campaign, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class FileError:
    """One thing wrong, where it stands."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.line} {self.path}: {self.message}" if self.path else f"{self.line} {self.message}"


class WorkspaceFileErrors(Invalid):
    """Everything that is wrong with a file; as text one line each, `workspace.toml:14 path: sentence`."""

    def __init__(self, name: str, errors: Sequence[FileError]) -> None:
        self.errors = sorted(errors)
        super().__init__("\n".join(f"{name}:{error}" for error in self.errors))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a file is judged against: the kinds there are, what exists already, whether the clock is moved."""

    catalogue: KindCatalogue
    existing: Mapping[str, str] = field(default_factory=dict)  # connection name -> kind
    removes_absent: bool = False
    clock_is_moved: bool = False


def load_workspace_file(path: Path, around: Surroundings) -> WorkspaceFile:
    """Read and validate a file. Raises WorkspaceFileErrors, or Invalid if it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise WorkspaceFileErrors(path.name, [FileError(line, "", "is not UTF-8; save the file as UTF-8")]) from None
    return parse_workspace_file(text, path.name, path.absolute().parent, around)


def parse_workspace_file(text: str, name: str, folder: Path, around: Surroundings) -> WorkspaceFile:
    """Validate the text of a file. `folder` is where its relative paths begin. Raises WorkspaceFileErrors."""
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkspaceFileErrors(name, [_syntax_error(str(error), text)]) from None
    reader = _Reader(raw, folder, around)
    workspace = reader.workspace()
    connections = tuple(reader.connections())
    campaigns = tuple(reader.campaigns())
    reader.unknown_sections()
    if reader.found or workspace is None:
        lines = line_index(text)
        raise WorkspaceFileErrors(name, [_placed(found, lines) for found in dict.fromkeys(reader.found)])
    return WorkspaceFile(workspace, connections, campaigns)


def _placed(found: Found, lines: Mapping[Keys, int]) -> FileError:
    return FileError(line_of(lines, found.path), _dotted(found.path), found.message)


def _dotted(path: Keys) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else f'"{part}"')
    return text


def _below(place: Keys, path: Keys) -> Keys:
    return (*place, *path)


def _syntax_error(message: str, text: str) -> FileError:
    match = _SYNTAX.match(message)
    if match is None:
        return FileError(1, "", f"is not TOML: {message}")
    line = int(match["line"]) if match["line"] else text.count("\n") + 1
    where = f" (column {match['column']})" if match["column"] else ""
    what = _TUPLE.sub(lambda found: ".".join(re.findall(r"'([^']*)'", found[0])), match["what"])
    return FileError(line, "", f"is not TOML: {what[:1].lower()}{what[1:]}{where}")


class _Reader:
    """Goes through the sections and collects what is wrong."""

    def __init__(self, raw: dict[str, Any], folder: Path, around: Surroundings) -> None:
        self.found: list[Found] = []
        self._raw = raw
        self._folder = folder
        self._around = around
        self._catalogue = around.catalogue
        self._kinds = {} if around.removes_absent else dict(around.existing)
        self._named = {name: table.get("kind") for name, table in self._tables("connections", quietly=True)}
        self._kinds.update({name: str(kind) for name, kind in self._named.items()})

    def workspace(self) -> Workspace | None:
        raw = self._raw.get("workspace")
        if not isinstance(raw, dict):
            self._say(("workspace",), "is required: a table with at least a name")
            raw = {"name": "?"}
        inside = [part for part in PARTS if part in raw]
        for part in inside:
            header = f"[[{part}]]" if part == "quiet_periods" else f"[{part}]"
            self._say(("workspace", part), f"is a section of its own: write {header}")
        values = {key: value for key, value in raw.items() if key not in inside}
        values |= {part: self._raw[part] for part in PARTS if part in self._raw}
        return self._validate(
            Workspace, values, lambda path: path if path and path[0] in PARTS else ("workspace", *path)
        )

    def connections(self) -> Iterator[ConnectionSettings]:
        for name, table in self._tables("connections"):
            place = ("connections", name)
            self._check_name(place, name)
            for key in table.keys() - {"kind", "config"}:
                self._say((*place, key), f"there is no such key{did_you_mean(key, ('kind', 'config'))}")
            settings = self._connection(place, name, table)
            if settings is not None:
                yield settings

    def _connection(self, place: tuple[str, ...], name: str, table: dict[str, Any]) -> ConnectionSettings | None:
        kind, config = table.get("kind"), table.get("config", {})
        kinds = self._catalogue.kinds()
        if "kind" not in table:
            self._say((*place, "kind"), f"is required: one of {', '.join(kinds)}")
        elif not isinstance(kind, str) or kind not in kinds:
            self._say(
                (*place, "kind"),
                f"there is no kind {kind!r}{did_you_mean(str(kind), kinds)}; known kinds: {', '.join(kinds)}",
            )
        elif not isinstance(config, dict):
            self._say((*place, "config"), "must be a table: config = { ... }")
        else:
            return self._settings(place, name, kind, config)
        return None

    def _settings(self, place: tuple[str, ...], name: str, kind: str, config: dict[str, Any]) -> ConnectionSettings:
        before = self._around.existing.get(name, kind)
        if before != kind:
            self._say(
                (*place, "kind"),
                f"{name} is a connection of kind {before} and cannot become {kind}; give the new one another name",
            )
        problems = self._catalogue.problems(kind, config, self._folder)
        self.found += [Found((*place, "config", *problem.path), problem.message) for problem in problems]
        if problems:
            return ConnectionSettings(name, kind, config)
        stored = self._catalogue.at_home(kind, config, self._folder)
        if self._around.clock_is_moved and self._catalogue.reaches_outside(kind, stored):
            self._say(
                place,
                "reaches beyond this machine, which BOUCLE_CLOCK_OFFSET forbids: people would be asked under a false"
                " date; unset it, or use connections of this machine",
            )
        return ConnectionSettings(name, kind, stored)

    def campaigns(self) -> Iterator[Campaign]:
        for name, table in self._tables("campaigns"):
            place = ("campaigns", name)
            self._check_name(place, name)
            values = {key: value for key, value in table.items() if key != "name"}
            if "name" in table:
                self._say((*place, "name"), "there is no such key: the name stands in the section's title")
            self._references(place, table)
            values = self._with_logo(place, values)
            # a wrong name has been told already
            known_name = name if re.fullmatch(NAME, name) else "unnamed"
            campaign = self._validate(Campaign, {**values, "name": known_name}, partial(_below, place))
            if campaign is not None:
                yield campaign

    def _references(self, place: tuple[str, ...], table: dict[str, Any]) -> None:
        for key, capability, what in (
            ("source", "ContactSource", "read contacts"),
            ("sender", "SurveySender", "send surveys"),
            ("write_back", "ContactSink", "take scores back"),
        ):
            written = table.get(key)
            if isinstance(written, str):
                self._reference((*place, key), written, capability, what)
            elif isinstance(written, list):
                for number, item in enumerate(written):
                    if isinstance(item, str):
                        self._reference((*place, key, number), item, capability, what)
                    if isinstance(item, str) and item in written[:number]:
                        self._say((*place, key, number), f"names {item} twice")

    def _reference(self, place: Keys, name: str, capability: str, what: str) -> None:
        if name not in self._kinds:
            there = ", ".join(sorted(self._kinds)) or "none"
            self._say(place, f"there is no connection {name!r}{did_you_mean(name, self._kinds)}; connections: {there}")
            return
        kind = self._kinds[name]
        if kind in self._catalogue.kinds() and capability not in self._catalogue.capabilities(kind):
            self._say(place, f"the connection {name} ({kind}) cannot {what}")

    def _with_logo(self, place: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
        survey = values.get("survey")
        logo = survey.get("logo") if isinstance(survey, dict) else None
        if not isinstance(survey, dict) or not isinstance(logo, str) or not logo:
            return values
        path = (self._folder / Path(logo).expanduser()).absolute()
        problem = _logo_problem(path)
        if problem:
            self._say((*place, "survey", "logo"), problem)
        return {**values, "survey": {**survey, "logo": str(path)}}

    def unknown_sections(self) -> None:
        for key in self._raw.keys() - set(SECTIONS):
            self._say((key,), f"there is no such section{did_you_mean(key, SECTIONS)}; sections: {', '.join(SECTIONS)}")

    def _tables(self, section: str, *, quietly: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = self._raw.get(section, {})
        if not isinstance(tables, dict):
            if not quietly:
                self._say((section,), f"must be tables with names: [{section}.NAME]")
            return
        for name, table in tables.items():
            if isinstance(table, dict):
                yield name, table
            elif not quietly:
                self._say((section, name), f"must be a table: [{section}.{name}]")

    def _check_name(self, place: tuple[str, ...], name: str) -> None:
        if not re.fullmatch(NAME, name):
            self._say(place, "a name has 1 to 40 small letters, digits, - or _ and begins with a letter: " + repr(name))

    def _validate(self, model: type[M], values: dict[str, Any], place: Callable[[Keys], Keys]) -> M | None:
        valid, found = validate(model, values)
        self.found += [Found(place(one.path), one.message) for one in found]
        return valid

    def _say(self, path: Keys, message: str) -> None:
        self.found.append(Found(path, message))


def _logo_problem(path: Path) -> str:
    if path.suffix.lower() not in LOGO_SUFFIXES:
        return "must be a PNG or SVG file"
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is larger than {LARGEST_LOGO // 1000} kB" if size > LARGEST_LOGO else ""


def stored(settings: BaseModel) -> dict[str, Any]:
    """Settings as JSON for the database and for comparing: only what differs from the defaults."""
    return settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
