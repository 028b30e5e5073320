"""A workspace file that is wrong: every error at once, each with its path, its line and a sentence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid
from core.settings_errors import Found
from core.workspace_file import (
    ConnectionSettings,
    FileError,
    Surroundings,
    WorkspaceFile,
    WorkspaceFileErrors,
    load_workspace_file,
    parse_workspace_file,
)


class Kinds:
    """Three kinds of connections: customers in a book, mail by post, and a desk that does both."""

    CAN: Mapping[str, Collection[str]] = {
        "book": ("ContactSource", "ContactSink"),
        "post": ("SurveySender",),
        "desk": ("ContactSource", "SurveySender"),
    }

    def kinds(self) -> Sequence[str]:
        return tuple(self.CAN)

    def capabilities(self, kind: str) -> Collection[str]:
        return self.CAN[kind]

    def problems(self, kind: str, config: Mapping[str, Any], folder: Path) -> Sequence[Found]:
        return [Found((key,), "there is no such setting") for key in config if key != "path"]

    def at_home(self, kind: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        return {key: str(folder / value) for key, value in config.items()}

    def reaches_outside(self, kind: str, config: Mapping[str, Any]) -> bool:
        return kind == "post"


FOLDER = Path("/srv/acme")
HEAD = """\
[workspace]
name = "Acme"
[connections.crm]
kind = "book"
config = { path = "customers.book" }
[connections.mail]
kind = "post"
"""
CAMPAIGN = """\
[campaigns.relationship]
source = "crm"
sender = "mail"
every_days = 90
"""


def read(text: str, **around: Any) -> WorkspaceFile:
    return parse_workspace_file(text, "workspace.toml", FOLDER, Surroundings(Kinds(), **around))


def errors(text: str, **around: Any) -> list[FileError]:
    with pytest.raises(WorkspaceFileErrors) as raised:
        read(text, **around)
    return raised.value.errors


def test_the_example_of_the_design_reads_as_it_is_meant() -> None:
    file = read("""\
[workspace]
name = "Acme"
languages = ["fr", "en"]            # first is the default
time_zone = "Europe/Paris"
live = true
test_recipients = ["me@acme.example"]
retention_days = { inbox = 30, payloads = 30, hits = 30 }
[quarantine]
any_survey_days = 30
same_type_days = 90
after_answer_days = 90
after_decline_days = 180
after_silence_days = 60
touches_per_365_days = 4
company_share = 0.2
tenure_days = 30
[brakes]
bounce_share = 0
first_wave = 0
[[quiet_periods]]
name = "price rise"
from = 2026-12-20
to = 2027-01-04
[connections.crm]
kind = "book"
config = { path = "customers.book" }
[connections.mail]
kind = "post"
[campaigns.relationship]
type = "nps"
source = "crm"
sender = "mail"
write_back = ["crm"]
every_days = 90
start = 2026-12-01
end = 2027-11-30
purpose = "To learn what to change first."
priority = 2
audience = { country = ["FR", "BE"], plan = { not = ["trial"] } }
daily_limit = 200
send_window = { from = "09:00", to = "17:00", days = "mon-fri" }
reminder_days = 6
window_days = 21
expected_response_rate = 0.15
blocked = "wait"
survey = { template = "relationship", brand = "Acme", colour = "#1450d2", progress = true, anonymous = false, confirm = "suspect" }
""")  # noqa: E501
    assert file.workspace.languages == ("fr", "en")
    assert file.workspace.quiet_periods[0].from_ == date(2026, 12, 20)
    assert file.workspace.brakes.bounce_share == 0
    assert file.connections == (
        ConnectionSettings("crm", "book", {"path": "/srv/acme/customers.book"}),
        ConnectionSettings("mail", "post", {}),
    )
    (campaign,) = file.campaigns
    assert (campaign.name, campaign.priority, campaign.daily_limit) == ("relationship", 2, 200)
    assert campaign.who.conditions[1].operand == ("trial",)


# Each row: lines after a campaign that is right, the path of the error, a part of its sentence, the line within.
WRONG_IN_CAMPAIGN = [
    ("every_day = 90", "every_day", "did you mean every_days?"),
    ("daily_limt = 5", "daily_limt", "did you mean daily_limit?"),
    ('daily_limit = "200"', "daily_limit", 'must be a whole number, not "200"'),
    ("daily_limit = 0", "daily_limit", "must be at least 1, not 0"),
    ("daily_limit = 2.5", "daily_limit", "must be a whole number, not 2.5"),
    ("priority = true", "priority", "must be a whole number, not true"),
    ('start = "2026-12-01"', "start", "must be a date like 2026-12-01 (without quotes)"),
    ("start = 2026-12-01T09:00:00Z", "start", "must be a date like 2026-12-01"),
    ("start = 2026-12-02\nend = 2026-12-01", "end", "ends before it starts"),
    ("once = 2026-12-01", "", "either every_days or once"),
    ('type = "csat"', "type", "must be one of 'nps'"),
    ('blocked = "later"', "blocked", "must be one of 'wait' or 'skip'"),
    ("expected_response_rate = 15", "expected_response_rate", "must be at most 1, not 15"),
    ("expected_response_rate = nan", "expected_response_rate", "must be"),
    ("window_days = 0", "window_days", "must be at least 1"),
    ("reminder_days = 21", "reminder_days", "after the survey window has closed"),
    ('trigger = "order_delivered"', "trigger", "not available in this release"),
    ("sample = 400", "sample", "not available in this release"),
    ("margin = 5", "margin", "not available in this release"),
    ("stop_after = 100", "stop_after", "not available in this release"),
    ("delay_days = 3", "delay_days", "not available in this release"),
    ("latest_days = 14", "latest_days", "not available in this release"),
    ('name = "other"', "name", "the name stands in the section's title"),
    ('audience = "FR"', "audience", "must be a table"),
    ("audience = { country = [] }", "audience.country", "must be a value or a list of values"),
    ("audience = { plan = {} }", "audience.plan", "give it a condition"),
    ('audience = { plan = { nott = ["trial"] } }', "audience.plan.nott", "use not, min, max, before, after"),
    ('audience = { seats = { min = "five" } }', "audience.seats.min", "must be a number"),
    ("audience = { seats = { max = inf } }", "audience.seats.max", "must be a number"),
    ('audience = { since = { after = "soon" } }', "audience.since.after", "must be a date like 2026-12-01"),
    ('audience = { phone = { exists = "yes" } }', "audience.phone.exists", "must be true or false"),
    ("audience = { plan = { contains = [] } }", "audience.plan.contains", "must be a value or a list of values"),
    ('send_window = "09:00-17:00"', "send_window", "must be a table"),
    ('send_window = { from = "9:00" }', "send_window.from", "write it like 09:00"),
    ('send_window = { from = "17:00", to = "09:00" }', "send_window", "closes (09:00) before it opens (17:00)"),
    ('send_window = { days = "mon-fry" }', "send_window.days", "write them like mon-fri"),
    ('send_window = { form = "09:00" }', "send_window.form", "did you mean from?"),
    ('survey = { colour = "blue" }', "survey.colour", 'must be a colour like "#1450d2"'),
    ("survey = { anonymus = true }", "survey.anonymus", "did you mean anonymous?"),
    ('survey = { confirm = "sometimes" }', "survey.confirm", "must be one of"),
    ('survey = { reply_to = "nobody" }', "survey.reply_to", "is not an e-mail address"),
    ('survey = { template = "mine" }', "survey.template", "must be one of 'relationship'"),
    ('survey = { logo = "logo.gif" }', "survey.logo", "must be a PNG or SVG file"),
    ('survey = { logo = "missing.svg" }', "survey.logo", "cannot be read"),
    ('survey = { anonymous = true }\nwrite_back = "crm"', "write_back", "cannot write scores back to contacts"),
    ('write_back = ["crm", "crm"]', "write_back[1]", "names crm twice"),
    ('write_back = ["mail"]', "write_back[0]", "the connection mail (post) cannot take scores back"),
    ('write_back = "cmr"', "write_back", "did you mean crm?"),
    ("write_back = [3]", "write_back[0]", "must be text in quotes, not 3"),
]


@pytest.mark.parametrize(("lines", "key", "sentence"), WRONG_IN_CAMPAIGN, ids=[row[0] for row in WRONG_IN_CAMPAIGN])
def test_what_is_wrong_in_a_campaign_is_told_at_its_key(lines: str, key: str, sentence: str) -> None:
    (error,) = errors(HEAD + CAMPAIGN + lines)
    assert error.path == ".".join(filter(None, ["campaigns.relationship", key]))
    assert sentence in error.message
    first = (HEAD + CAMPAIGN).count("\n") + 1
    last = first + lines.count("\n")
    assert error.line in range(first, last + 1) or (key == "" and error.line == HEAD.count("\n") + 1)


WRONG_IN_WORKSPACE = [
    ('[workspace]\nname = ""', "workspace.name", 2, "must not be empty"),
    ("[workspace]", "workspace.name", 1, "is required"),
    ("", "workspace", 1, "a table with at least a name"),
    ('[workspace]\nname = "A"\nlanguages = ["fr", "de"]', "workspace.languages", 3, "must be among en, fr, not de"),
    ('[workspace]\nname = "A"\nlanguages = []', "workspace.languages", 3, "must be among en, fr"),
    ('[workspace]\nname = "A"\nlanguages = "fr"', "workspace.languages", 3, "must be a list"),
    ('[workspace]\nname = "A"\ntime_zone = "Paris"', "workspace.time_zone", 3, "a name such as Europe/Paris"),
    ('[workspace]\nname = "A"\nlive = "no"', "workspace.live", 3, "must be true or false"),
    ('[workspace]\nname = "A"\nlive = false', "workspace", 1, "needs test_recipients"),
    (
        '[workspace]\nname = "A"\ntest_recipients = ["me"]',
        "workspace.test_recipients[0]",
        3,
        "is not an e-mail address",
    ),
    ('[workspace]\nname = "A"\nretention_days = { hit = 3 }', "workspace.retention_days.hit", 3, "did you mean hits?"),
    ('[workspace]\nname = "A"\nquarantine = {}', "workspace.quarantine", 3, "write [quarantine]"),
    ('[workspace]\nname = "A"\n[quarantine]\nfloor_24h = 0', "quarantine.floor_24h", 4, "there is no such key"),
    ('[workspace]\nname = "A"\n[quarantine]\ntenure_days = -1', "quarantine.tenure_days", 4, "must be at least 0"),
    ('[workspace]\nname = "A"\n[quarantine]\ncompany_share = 20', "quarantine.company_share", 4, "must be at most 1"),
    ('[workspace]\nname = "A"\n[quarantine]\ncompany_share = 0', "quarantine.company_share", 4, "must be more than 0"),
    ('[workspace]\nname = "A"\n[brakes]\nrefusal = 3', "brakes.refusal", 4, "did you mean refusals?"),
    (
        '[workspace]\nname = "A"\n[quiet_periods]\nname = "x"',
        "quiet_periods",
        3,
        "[[quiet_periods]], with two brackets",
    ),
    (
        '[workspace]\nname = "A"\n[[quiet_periods]]\nname = "x"\nfrom = 2027-01-04\nto = 2026-12-20',
        "quiet_periods[0]",
        3,
        "ends before it begins",
    ),
    (
        '[workspace]\nname = "A"\n[[quiet_periods]]\nname = "x"\nfrom = 2027-01-04',
        "quiet_periods[0].to",
        3,
        "is required",
    ),
    ('[workspace]\nname = "A"\n[campaign.x]', "campaign", 3, "did you mean campaigns?"),
    ('connections = 3\n[workspace]\nname = "A"', "connections", 1, "tables with names: [connections.NAME]"),
    (
        '[workspace]\nname = "A"\n[connections]\ncrm = "book"',
        "connections.crm",
        4,
        "must be a table: [connections.crm]",
    ),
    ('[workspace]\nname = "A"\n[connections.crm]', "connections.crm.kind", 3, "is required: one of book, post, desk"),
    ('[workspace]\nname = "A"\n[connections.crm]\nkind = "bok"', "connections.crm.kind", 4, "did you mean book?"),
    ('[workspace]\nname = "A"\n[connections.CRM]\nkind = "book"', "connections.CRM", 3, "small letters, digits"),
    (
        '[workspace]\nname = "A"\n[connections.crm]\nkind = "book"\npath = "x"',
        "connections.crm.path",
        5,
        "there is no such key",
    ),
    (
        '[workspace]\nname = "A"\n[connections.crm]\nkind = "book"\nconfig = "x"',
        "connections.crm.config",
        5,
        "must be a table",
    ),
    (
        '[workspace]\nname = "A"\n[connections.crm]\nkind = "book"\n[connections.crm.config]\npth = "x"',
        "connections.crm.config.pth",
        6,
        "there is no such setting",
    ),
]


@pytest.mark.parametrize(
    ("text", "path", "line", "sentence"), WRONG_IN_WORKSPACE, ids=[row[1] for row in WRONG_IN_WORKSPACE]
)
def test_what_is_wrong_elsewhere_is_told_at_its_key(text: str, path: str, line: int, sentence: str) -> None:
    (error,) = errors(text)
    assert (error.path, error.line) == (path, line)
    assert sentence in error.message


NOT_TOML = [
    ('[workspace]\nname = "A\n', 2, ""),
    ('[workspace]\nname = "A"\nname = "B"\n', 3, "cannot overwrite a value"),
    ('[workspace]\nname = "A"\n[campaigns.x]\n[campaigns.x]\n', 4, "cannot declare campaigns.x twice"),
    ('[workspace]\nname = "A"\nstart = 2026-13-01\n', 3, ""),
    ("[workspace\n", 1, ""),
    ('[workspace]\nname = "A"\nlanguages = ["fr"\n', 4, ""),
]


@pytest.mark.parametrize(("text", "line", "sentence"), NOT_TOML)
def test_what_is_not_toml_is_told_with_its_line(text: str, line: int, sentence: str) -> None:
    (error,) = errors(text)
    assert error.line == line
    assert error.message.startswith("is not TOML: ")
    assert sentence in error.message


def test_all_errors_of_a_file_are_told_at_once() -> None:
    found = errors(
        '[workspace]\nname = "Acme"\nlive = false\ntime_zone = "Paris"\n'
        '[connections.crm]\nkind = "bok"\n'
        '[campaigns.relationship]\nsource = ["crm", "shop"]\nsender = "crm"\nevery_days = "90"\nreminder_days = 30\n'
        'audience = { a = { nott = 1 }, b = { min = "x" } }\nwrite_back = "crm"\n'
        'survey = { anonymous = true, colour = "blue" }\n[rules]\n'
    )
    assert [error.path for error in found] == [
        "workspace",
        "workspace.time_zone",
        "connections.crm.kind",
        "campaigns.relationship.source[1]",
        "campaigns.relationship.every_days",
        "campaigns.relationship.reminder_days",
        "campaigns.relationship.audience.a.nott",
        "campaigns.relationship.audience.b.min",
        "campaigns.relationship.write_back",
        "campaigns.relationship.survey.colour",
        "rules",
    ]
    assert [error.line for error in found] == sorted(error.line for error in found)


def test_a_wrong_value_makes_no_second_error_out_of_nothing() -> None:
    """Were `every_days = "90"` read as absent, the campaign would seem to have no cadence at all."""
    (error,) = errors(HEAD + CAMPAIGN.replace("90", '"90"'))
    assert error.path == "campaigns.relationship.every_days"
    (error,) = errors('[workspace]\nname = "A"\nlive = false\ntest_recipients = ["me"]\n')
    assert error.path == "workspace.test_recipients[0]"
    (error,) = errors(HEAD + CAMPAIGN + 'reminder_days = 25\nwindow_days = "30"\n')
    assert error.path == "campaigns.relationship.window_days"


def test_errors_as_text_name_file_line_and_path() -> None:
    with pytest.raises(WorkspaceFileErrors) as raised:
        read(HEAD + CAMPAIGN + "daily_limit = 0\nwindow_days = 0")
    assert str(raised.value) == (
        "workspace.toml:12 campaigns.relationship.daily_limit: must be at least 1, not 0\n"
        "workspace.toml:13 campaigns.relationship.window_days: must be at least 1, not 0"
    )


def test_connection_that_exists_already_may_be_named_without_standing_in_the_file() -> None:
    text = '[workspace]\nname = "Acme"\n' + CAMPAIGN
    file = read(text, existing={"crm": "book", "mail": "post"})
    assert file.campaigns[0].sender == "mail"
    found = errors(text, existing={"crm": "book", "mail": "post"}, removes_absent=True)
    assert [error.path for error in found] == ["campaigns.relationship.source", "campaigns.relationship.sender"]
    assert "there is no connection 'crm'" in found[0].message


def test_connection_cannot_become_another_kind() -> None:
    (error,) = errors(HEAD, existing={"crm": "desk"})
    assert error.path == "connections.crm.kind"
    assert "cannot become book; give the new one another name" in error.message


def test_moved_clock_is_refused_with_a_connection_that_reaches_outside() -> None:
    (error,) = errors(HEAD, clock_is_moved=True)
    assert error.path == "connections.mail"
    assert "BOUCLE_CLOCK_OFFSET" in error.message
    assert read(HEAD.replace('kind = "post"', 'kind = "desk"'), clock_is_moved=True)


def test_name_that_needs_quotes_is_shown_with_them() -> None:
    found = errors(HEAD + CAMPAIGN.replace("relationship", '"relation.ship"') + "daily_limit = 0")
    assert {error.path for error in found} == {
        'campaigns."relation.ship"',
        'campaigns."relation.ship".daily_limit',
    }


def test_logo_stands_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    file = tmp_path / "workspace.toml"
    file.write_text(HEAD + CAMPAIGN + 'survey = { logo = "logo.svg" }\n')
    assert load_workspace_file(file, Surroundings(Kinds())).campaigns[0].survey.logo == str(tmp_path / "logo.svg")
    (tmp_path / "logo.svg").write_bytes(b"x" * 200_001)
    with pytest.raises(WorkspaceFileErrors, match="larger than 200 kB"):
        load_workspace_file(file, Surroundings(Kinds()))


def test_file_may_begin_with_a_byte_order_mark_and_end_lines_with_crlf(tmp_path: Path) -> None:
    file = tmp_path / "workspace.toml"
    file.write_bytes(b"\xef\xbb\xbf" + (HEAD + CAMPAIGN).replace("\n", "\r\n").encode())
    assert load_workspace_file(file, Surroundings(Kinds())).workspace.name == "Acme"
    file.write_bytes((HEAD + CAMPAIGN + "daily_limit = 0").replace("\n", "\r\n").encode())
    with pytest.raises(WorkspaceFileErrors, match=r"workspace\.toml:12 campaigns"):
        load_workspace_file(file, Surroundings(Kinds()))


def test_file_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "workspace.toml"
    file.write_bytes('[workspace]\nname = "Café"\n'.encode("cp1252"))
    with pytest.raises(WorkspaceFileErrors, match=r"workspace\.toml:2 is not UTF-8"):
        load_workspace_file(file, Surroundings(Kinds()))


def test_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read: No such file"):
        load_workspace_file(tmp_path / "absent.toml", Surroundings(Kinds()))
    with pytest.raises(Invalid, match="cannot be read"):
        load_workspace_file(tmp_path, Surroundings(Kinds()))
