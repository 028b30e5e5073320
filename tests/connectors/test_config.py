"""One model is form, command line, documentation and validation; secrets are referred to and never shown."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import SecretStr, ValidationError, field_validator

import connectors
from connectors import CONNECTORS, build, kinds, load
from connectors.base import Connector, Credentials, StaticCredentials
from connectors.config import (
    MASK,
    ConfigField,
    ConnectorConfig,
    Input,
    absolute_paths,
    check_endpoint,
    check_references,
    config_fields,
    docs_rows,
    is_loopback,
    is_private,
    is_reference,
    json_schema,
    masked,
    problems,
    read_config,
    resolve_secrets,
    secret_names,
    setting,
)
from core.errors import Misconfigured, Unauthorized
from core.ports import Account


class Region(StrEnum):
    EU = "eu"
    US = "us"


class PigeonConfig(ConnectorConfig):
    """Pigeons."""

    loft: str = setting(title="Loft", help="Where they live.", group="Birds", example="roof")
    token: SecretStr = setting(title="Token")
    spare_token: SecretStr | None = setting(None, title="Spare token")
    security: Literal["starttls", "tls"] = setting("tls", title="Security")
    region: Region = setting(Region.EU, title="Region")
    birds: int = setting(3, title="Birds", ge=1, le=99)
    per_second: float | None = setting(None, title="Per second", gt=0)
    homing: bool = setting(True, title="Homing")
    notes: Path | None = setting(None, title="Notes")
    fields: dict[str, str] = setting(dict, title="Fields")
    names: tuple[str, ...] = setting((), title="Names")

    @field_validator("loft")
    @classmethod
    def _dry(cls, loft: str) -> str:
        if loft == "cellar":
            raise ValueError("is too damp")
        return loft


VALUES = {"loft": "roof", "token": "hush-hush"}


class Pigeon(Connector[PigeonConfig]):
    """Carries nothing."""

    kind: ClassVar[str] = "pigeon"
    title = "Pigeon"
    config_class = PigeonConfig

    def check(self) -> Account:
        return Account("pigeon:1")


def fields() -> dict[str, ConfigField]:
    return {field.name: field for field in config_fields(PigeonConfig)}


# --- one model, many faces ----------------------------------------------------------------------------------------


def test_every_setting_is_a_form_field_in_its_order() -> None:
    assert {name: field.input for name, field in fields().items()} == {
        "loft": Input.TEXT,
        "token": Input.SECRET,
        "spare_token": Input.SECRET,
        "security": Input.CHOICE,
        "region": Input.CHOICE,
        "birds": Input.INTEGER,
        "per_second": Input.NUMBER,
        "homing": Input.SWITCH,
        "notes": Input.PATH,
        "fields": Input.MAPPING,
        "names": Input.LIST,
    }
    assert list(fields()) == list(PigeonConfig.model_fields)


def test_a_form_field_knows_its_words_and_limits() -> None:
    loft, birds, security = fields()["loft"], fields()["birds"], fields()["security"]
    assert (loft.title, loft.help, loft.group, loft.example) == ("Loft", "Where they live.", "Birds", "roof")
    assert (loft.required, loft.default) == (True, None)
    assert (birds.required, birds.default, birds.minimum, birds.maximum) == (False, 3, 1, 99)
    assert (security.options, security.default) == (("starttls", "tls"), "tls")
    assert fields()["region"].options == ("eu", "us")
    assert fields()["per_second"].minimum == 0


def test_every_setting_is_an_option_on_the_command_line() -> None:
    assert fields()["per_second"].flag == "--per-second"
    assert fields()["security"].metavar == "starttls|tls"
    assert [name for name, field in fields().items() if field.repeatable] == ["fields", "names"]


def test_secrets_are_known_by_their_type() -> None:
    assert secret_names(PigeonConfig) == {"token", "spare_token"}


def test_json_schema_tells_titles_groups_and_secrets() -> None:
    schema = json_schema(PigeonConfig)
    assert schema["required"] == ["loft", "token"]
    assert schema["properties"]["loft"]["group"] == "Birds"
    assert schema["properties"]["token"]["writeOnly"] is True
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_documentation_has_a_row_per_setting() -> None:
    rows = {row[0]: row[1:] for row in docs_rows(PigeonConfig)}
    assert rows["loft"] == ("text", "required", "Loft. Where they live.")
    assert rows["token"] == ("secret (`env:NAME` or `file:PATH`)", "required", "Token.")
    assert rows["security"] == ("starttls | tls", "tls", "Security.")
    assert rows["per_second"] == ("number", "", "Per second.")


@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_every_connector_of_ours_describes_itself(kind: str) -> None:
    found = load(kind)
    assert found.kind == kind
    assert found.title
    assert found.docs_url.startswith("https://")
    for field in config_fields(found.config_class):
        assert field.title, field.name
    json.dumps([field.default for field in config_fields(found.config_class)])


# --- secrets ------------------------------------------------------------------------------------------------------


def test_shown_values_hide_secrets_and_keep_references() -> None:
    config = PigeonConfig.model_validate(VALUES)
    assert masked(config)["token"] == MASK
    assert "spare_token" in masked(config)
    assert masked(config)["spare_token"] is None
    assert "hush" not in json.dumps(masked(config)) + repr(config) + str(config)
    stored = masked({"loft": "roof", "token": "env:TOKEN", "spare_token": "hush"}, PigeonConfig)
    assert stored == {"loft": "roof", "token": "env:TOKEN", "spare_token": MASK}


def test_a_secret_written_out_is_refused_and_a_reference_is_not() -> None:
    (found,) = check_references({"loft": "env:x", "token": "hush-hush", "spare_token": "env:SPARE"}, PigeonConfig)
    assert found.path == ("token",)
    assert str(found) == "token: is a secret: refer to it as env:NAME or file:PATH instead of writing it here"
    assert check_references({"token": "file:secrets/token", "spare_token": None}, PigeonConfig) == []
    assert [p.path for p in check_references({"token": 5, "spare_token": "env:"}, PigeonConfig)] == [
        ("spare_token",),
        ("token",),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("env:A", True),
        ("file:/x", True),
        ("env:", False),
        ("file: ", False),
        ("secret", False),
        (None, False),
        (5, False),
    ],
)
def test_what_a_reference_is(value: Any, expected: bool) -> None:
    assert is_reference(value) is expected


def test_references_are_resolved_from_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file \n", encoding="utf-8")
    values = {"loft": "env:LOFT", "token": "env:TOKEN", "spare_token": "file:secret", "birds": 2}
    resolved = resolve_secrets(values, PigeonConfig, {"TOKEN": "from the environment"}, tmp_path)
    assert resolved == {
        "loft": "env:LOFT",
        "token": "from the environment",
        "spare_token": "from a file ",
        "birds": 2,
    }


def test_a_reference_to_nothing_says_which(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_bytes(b"x" * 100_000)
    for reference, message in (
        ("env:NOT_SET", "token: the environment variable NOT_SET is not set"),
        ("file:missing", "missing cannot be read: No such file"),
        ("file:empty", "empty is empty"),
        ("file:binary", "it is not text in UTF-8"),
        ("file:huge", "too large to be a secret"),
    ):
        with pytest.raises(Misconfigured, match=message) as refused:
            resolve_secrets({"token": reference}, PigeonConfig, {}, tmp_path)
        assert refused.value.field == "token"


def test_paths_are_made_absolute_also_those_of_secrets(tmp_path: Path) -> None:
    values = {"loft": "roof", "notes": "a/notes.txt", "token": "file:secrets/t", "spare_token": "env:T"}
    assert absolute_paths(values, PigeonConfig, tmp_path) == {
        "loft": "roof",
        "notes": str(tmp_path / "a/notes.txt"),
        "token": f"file:{tmp_path}/secrets/t",
        "spare_token": "env:T",
    }
    assert absolute_paths({"notes": "/abs/n"}, PigeonConfig, tmp_path) == {"notes": "/abs/n"}


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_every_problem_is_told_with_its_path_and_without_the_value() -> None:
    with pytest.raises(ValidationError) as refused:
        PigeonConfig.model_validate(
            {
                "loft": "cellar",
                "token": {"hush": "hush"},
                "security": "none",
                "birds": 0,
                "fields": {"email": 1},
                "brids": 5,
            }
        )
    assert {str(problem) for problem in problems(refused.value, PigeonConfig)} == {
        "loft: is too damp",
        "token: should be a valid string",
        "security: must be one of 'starttls' or 'tls'",
        "birds: should be greater than or equal to 1",
        "fields.email: should be a valid string",
        "brids: there is no such setting; there are loft, token, spare_token, security, region, birds, per_second,"
        " homing, notes, fields, names",
    }
    assert "hush" not in str(refused.value)


def test_a_configuration_that_cannot_work_names_its_first_field() -> None:
    with pytest.raises(Misconfigured, match="loft: is required; token: is required") as refused:
        read_config(PigeonConfig, {})
    assert refused.value.field == "loft"


def test_a_configuration_never_changes() -> None:
    config = PigeonConfig.model_validate(VALUES)
    with pytest.raises(ValidationError):
        config.loft = "barn"


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x",
        "https://localhost/",
        "http://10.0.0.1",
        "http://192.168.1.1",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0",
        "http://100.64.0.1",
        "http://2130706433/",
        "172.16.0.1",
    ],
)
def test_an_address_inside_this_network_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(Misconfigured, match="BOUCLE_ALLOW_PRIVATE_ENDPOINTS=1"):
        check_endpoint(url, allow_private=False)
    check_endpoint(url, allow_private=True)


def test_an_address_of_the_internet_is_not_refused() -> None:
    check_endpoint("https://93.184.215.14/x", allow_private=False)
    assert not is_private("2606:4700::1111")
    assert not is_private("::ffff:93.184.215.14")
    assert is_private("224.0.0.1")


@pytest.mark.parametrize("url", ["ftp://93.184.215.14", "file:///etc/passwd", "https://", "http://[", "https:///x"])
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="no http or https address"):
        check_endpoint(url, allow_private=True)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(Misconfigured, match="must not carry"):
        check_endpoint("https://ada:hush@93.184.215.14/", allow_private=False)


def test_a_name_that_does_not_resolve_is_told() -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.invalid does not resolve"):
        check_endpoint("https://nowhere.invalid/", allow_private=False)


def test_what_loopback_is() -> None:
    assert is_loopback("localhost")
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("nowhere.invalid")


# --- the registry -------------------------------------------------------------------------------------------------


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match=r'no connector of kind "pigeons"; known kinds: .*csv.*mailbox.*smtp'):
        load("pigeons")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let somebody's package add kinds."""

    def add(**values: str) -> None:
        entries = [EntryPoint(name, value, connectors.ENTRY_POINTS) for name, value in values.items()]
        monkeypatch.setattr(connectors, "entry_points", lambda group: entries)
        connectors._added.cache_clear()
        load.cache_clear()

    yield add
    monkeypatch.undo()
    connectors._added.cache_clear()
    load.cache_clear()


def test_other_peoples_packages_add_kinds(added: Any) -> None:
    added(pigeon=f"{__name__}:Pigeon", smtp=f"{__name__}:Pigeon")
    assert "pigeon" in kinds()
    assert issubclass(load("pigeon"), Connector)
    assert load("smtp").kind == "smtp"
    assert build("pigeon", VALUES).check() == Account("pigeon:1")


def test_a_package_that_adds_something_else_is_told_by_name(added: Any) -> None:
    added(broken="no.such.module:X", thing="pathlib:Path", other=f"{__name__}:Pigeon")
    for kind, message in (("broken", "cannot be loaded"), ("thing", "is no connectors"), ("other", "another kind")):
        with pytest.raises(Misconfigured, match=f'"{kind}".*{message}'):
            load(kind)


# --- credentials --------------------------------------------------------------------------------------------------


def test_static_credentials_keep_what_a_refresh_made_and_never_show_it() -> None:
    credentials = StaticCredentials({"access_token": "old-secret"})
    assert isinstance(credentials, Credentials)
    assert credentials.refresh(lambda now: {**now, "access_token": "new-secret"})["access_token"] == "new-secret"
    assert credentials.get("access_token") == "new-secret"
    assert credentials.get("refresh_token") is None
    assert "secret" not in repr(credentials)
    with pytest.raises(Unauthorized, match="refresh_token"):
        credentials.require("refresh_token")


def test_a_connector_tells_what_it_can_do_and_no_secret() -> None:
    pigeon = Pigeon(PigeonConfig.model_validate(VALUES), build("mailbox", BOX).http, StaticCredentials())
    assert "hush" not in repr(pigeon) + repr(pigeon.config)
    assert pigeon.reaches_outside()
    assert pigeon.rate_per_second() is None


BOX = {"path": "/nowhere/box", "sender": "a@acme.example"}
