"""The settings of a workspace and its campaigns: what the workspace file says, validated and typed.

These models are the one place that knows the keys, their types and their defaults. `core.workspace_file` reads a TOML
file into them and finds the line of each error; `core.storage.settings` keeps them as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from core.audience import Audience, parse_audience

LANGUAGES = ("en", "fr")
#: One reminder by default, 5 to 7 days later (the contact-frequency rule).
REMINDER_DAYS = 6
NAME = r"^[a-z][a-z0-9_-]{0,39}$"
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


#: Keys of a campaign that a later release fills with life.
NOT_YET = ("trigger", "delay_days", "latest_days", "sample", "margin", "stop_after")


class Model(BaseModel):
    """Frozen, and a key nobody knows is an error: a typing mistake must not switch a rule off."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"unknown time zone {value!r}; use a name such as Europe/Paris")
    return value


def _plain_address(value: str) -> str:
    if not re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", value):
        raise ValueError(f"{value!r} is not an e-mail address")
    return value


Zone = Annotated[str, AfterValidator(_known_zone)]
Address = Annotated[str, AfterValidator(_plain_address)]
Days = Annotated[int, Field(ge=0, le=3650)]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Keys that are right one by one and wrong together: where to show it, and a sentence.

    `leans_on`: keys whose absence or default is part of the case. If one of them was written and is wrong by itself,
    there may be no conflict.
    """

    path: tuple[str, ...]
    sentence: str
    leans_on: frozenset[str] = frozenset()


class Conflicts(ValueError):
    """Everything a model finds wrong at once, where pydantic would tell one."""

    def __init__(self, found: list[Conflict]) -> None:
        super().__init__("; ".join(one.sentence for one in found))
        self.found = found


class Quarantine(Model):
    """Every clock of FREQUENCY.md that may be set. The 24 h floor may not."""

    any_survey_days: Days = 30
    same_type_days: Days = 90
    after_answer_days: Days = 90
    after_decline_days: Days = 180
    after_silence_days: Days = 60
    touches_per_365_days: Annotated[int, Field(ge=1, le=365)] = 4
    company_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    tenure_days: Days = 30


class Brakes(Model):
    """When a campaign stops itself. 0 switches one off."""

    bounce_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    complaint_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    refusals: Annotated[int, Field(ge=0)] = 20
    first_wave: Annotated[int, Field(ge=0)] = 50
    first_wave_minutes: Annotated[int, Field(ge=0)] = 60


class QuietPeriod(Model):
    """Nobody is asked from the first day to the last, both included, in the workspace's zone."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    from_: date = Field(alias="from")
    to: date

    @model_validator(mode="after")
    def _in_order(self) -> QuietPeriod:
        if self.to < self.from_:
            raise ValueError(f"quiet period {self.name!r} ends before it begins")
        return self


class Retention(Model):
    """Days that raw material is kept."""

    inbox: Annotated[int, Field(ge=1)] = 30
    payloads: Annotated[int, Field(ge=1)] = 30
    hits: Annotated[int, Field(ge=1)] = 30


class Workspace(Model):
    """`[workspace]` with its rules."""

    name: str = Field(min_length=1, max_length=80)
    languages: tuple[str, ...] = ("en",)
    time_zone: Zone = "UTC"
    live: bool = True
    test_recipients: tuple[Address, ...] = ()
    retention_days: Retention = Retention()
    quarantine: Quarantine = Quarantine()
    brakes: Brakes = Brakes()
    quiet_periods: tuple[QuietPeriod, ...] = ()

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [language for language in value if language not in LANGUAGES]
        if unknown or not value:
            raise ValueError(f"languages must be among {', '.join(LANGUAGES)}, not {', '.join(unknown) or 'empty'}")
        return value

    @model_validator(mode="after")
    def _someone_to_test_with(self) -> Workspace:
        if not self.live and not self.test_recipients:
            sentence = "live = false needs test_recipients: the only addresses that may receive anything"
            raise Conflicts([Conflict((), sentence, frozenset({"test_recipients"}))])
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


class SendWindow(Model):
    """When a message may leave, in the recipient's time zone: from (included) to (excluded), on these days."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    from_: time = Field(alias="from", default=time(0, 0))
    to: time = time(0, 0)  # midnight: the end of the day
    days: str = "mon-sun"

    @field_validator("from_", "to", mode="before")
    @classmethod
    def _clock_time(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value == "24:00":
                return time(0, 0)
            if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
                raise ValueError(f"{value!r} is not a time of day; write it like 09:00")
            return time.fromisoformat(value)
        return value

    @field_serializer("from_", "to")
    def _as_written(self, value: time) -> str:
        return f"{value:%H:%M}"

    @field_validator("days")
    @classmethod
    def _known_days(cls, value: str) -> str:
        weekdays(value)
        return value

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> SendWindow:
        if self.to != time(0, 0) and self.from_ >= self.to:
            raise ValueError(f"the send window closes ({self.to:%H:%M}) before it opens ({self.from_:%H:%M})")
        return self

    @property
    def weekdays(self) -> frozenset[int]:
        """The days it opens, Monday is 0."""
        return weekdays(self.days)


def weekdays(text: str) -> frozenset[int]:
    """Days of the week of `mon-fri` or `mon,wed,sat-sun`, Monday is 0. Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in _WEEKDAYS or (last and last not in _WEEKDAYS):
            raise ValueError(f"{text!r} does not name days; write them like mon-fri or mon,wed,sat")
        begin, end = _WEEKDAYS.index(first), _WEEKDAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)


class Survey(Model):
    """What the respondent sees."""

    template: Literal["relationship"] = "relationship"
    brand: str = Field(default="", max_length=80)  # empty: the workspace's name
    logo: str = ""  # a PNG or SVG file beside the workspace file
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#1450d2"
    progress: bool = True
    anonymous: bool = False
    confirm: Literal["never", "suspect", "always"] = "suspect"
    reply_to: Address | None = None
    sender_name: str = Field(default="", max_length=80)
    address: str = Field(default="", max_length=200)  # postal address for the footer of the mail


class Campaign(Model):
    """`[campaigns.NAME]`."""

    name: Annotated[str, Field(pattern=NAME)]
    type: Literal["nps"] = "nps"
    source: tuple[str, ...] = Field(min_length=1)
    sender: str
    write_back: tuple[str, ...] = ()
    every_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    once: date | None = None
    trigger: str | None = None
    delay_days: Days = 0
    latest_days: Days | None = None
    start: date | None = None
    end: date | None = None
    stop_after: Annotated[int, Field(ge=1)] | None = None
    purpose: str = ""
    priority: int = 0  # higher goes first
    audience: dict[str, Any] = Field(default_factory=dict)
    daily_limit: Annotated[int, Field(ge=1)] | None = None
    sample: Annotated[int, Field(ge=1)] | None = None
    margin: Annotated[float, Field(gt=0, le=100)] | None = None
    send_window: SendWindow | None = None
    reminder_days: Annotated[int, Field(ge=0, le=60)] | None = None  # 0: none; absent: see `reminds_after_days`
    window_days: Annotated[int, Field(ge=1, le=365)] = 21
    expected_response_rate: Annotated[float, Field(gt=0, le=1)] = 0.15
    blocked: Literal["wait", "skip"] | None = None
    survey: Survey = Survey()

    @field_validator("source", "write_back", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("audience")
    @classmethod
    def _grammar(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = list(_wrong_conditions(value))
        if found:
            raise Conflicts(found)
        return value

    @model_validator(mode="after")
    def _keys_agree(self) -> Campaign:
        found = list(self._conflicts())
        if found:
            raise Conflicts(found)
        return self

    def _conflicts(self) -> Iterator[Conflict]:
        cadences = [key for key in ("every_days", "once") if getattr(self, key) is not None]
        if len(cadences) != 1 and self.trigger is None:
            found = " and ".join(cadences) or "neither"
            absent = frozenset({"every_days", "once", "trigger"} - set(cadences))
            yield Conflict((), f"a campaign needs either every_days or once; this one has {found}", absent)
        if self.start and self.end and self.end < self.start:
            yield Conflict(("end",), "the campaign ends before it starts")
        if self.once and self.end and self.end < self.once:
            yield Conflict(("end",), "the campaign ends before the day of once")
        if self.reminder_days and self.reminder_days >= self.window_days:
            sentence = "the reminder would leave after the survey window has closed: lower reminder_days"
            yield Conflict(("reminder_days",), sentence, frozenset({"window_days"}))
        if self.survey.anonymous and self.write_back:
            sentence = "an anonymous survey cannot write scores back to contacts: drop write_back or anonymous"
            yield Conflict(("write_back",), sentence)
        for key in NOT_YET:
            if key in self.model_fields_set:  # a key that is accepted and ignored would break a promise in silence
                yield Conflict((key,), f"{key} is not available in this release; leave it out")

    @property
    def reminds_after_days(self) -> int | None:
        """When the one reminder is due; None for none. By default there is one, if the survey window lasts for it."""
        if self.reminder_days is None:
            return REMINDER_DAYS if self.window_days > REMINDER_DAYS else None
        return self.reminder_days or None

    @property
    def waits(self) -> bool:
        """Whether blocked people stay planned until they are free."""
        return (self.blocked or ("skip" if self.trigger else "wait")) == "wait"

    @property
    def who(self) -> Audience:
        """The audience, parsed."""
        return parse_audience(self.audience)


def _wrong_conditions(audience: dict[str, Any]) -> Iterator[Conflict]:
    """Each condition by itself, so that all that are wrong are told, each at its own line."""
    for name, wanted in audience.items():
        conditions: list[tuple[tuple[str, ...], Any]] = [((name,), wanted)]
        if isinstance(wanted, dict) and wanted:
            conditions = [((name, operator), {operator: operand}) for operator, operand in wanted.items()]
        for path, condition in conditions:
            try:
                parse_audience({name: condition})
            except ValueError as error:
                yield Conflict(path, str(error))
