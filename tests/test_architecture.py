"""The shape of the code: imports point one way, core names no vendor, each library stays in its room.

The rules read the source (`ast`), so a forbidden import is found even where no test would run it. Each rule is a
function from a `Source` to complaints; the second half of the file feeds each of them bad and good snippets, so that a
rule which finds nothing is known to be one that could.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("core", "connectors", "webhooks", "web")

# Which of our own packages each layer may import.
MAY_IMPORT = {
    "core": {"core"},
    "connectors": {"connectors", "core"},
    "webhooks": {"webhooks", "connectors", "core"},
    "web": {"web", "connectors", "core", "webhooks"},
}
# The factory and its wiring alone put the receivers in.
IMPORTS_WEBHOOKS = {"web/app.py", "web/wiring.py"}

NOT_IN_CORE = {
    "aiohttp",
    "babel",
    "bootstrap_flask",
    "click",
    "flask",
    "flask_babel",
    "flask_bootstrap",
    "flask_login",
    "flask_wtf",
    "gunicorn",
    "http.client",
    "http.server",
    "httpx",
    "imaplib",
    "requests",
    "smtplib",
    "tenacity",
    "urllib3",
    "werkzeug",
    "wtforms",
}
NETWORK = {"aiohttp", "http.client", "httpx", "imaplib", "requests", "smtplib", "socket", "urllib.request", "urllib3"}
STORAGE_LIBRARIES = {"alembic", "psycopg", "sqlalchemy", "sqlite3"}

# A vendor's library is imported inside its own connector only.
SDK_OF = {
    "hubspot": "hubspot",
    "simple_salesforce": "salesforce",
    "mailchimp_marketing": "mailchimp",
    "mailchimp_transactional": "mailchimp",
    "slack_sdk": "slack",
    "googleapiclient": "google_sheets",
    "gspread": "google_sheets",
    "pyairtable": "airtable",
}
CONNECTOR_KINDS = {
    "activecampaign",
    "airtable",
    "csv",
    "getresponse",
    "google_sheets",
    "hubspot",
    "intercom",
    "mailbox",
    "mailchimp",
    "monday",
    "questionpro",
    "salesforce",
    "slack",
    "smtp",
}
# Monday is also a day of the week and slack also room to spare: these two are known by address, capital or quotes.
VENDOR_NAME = re.compile(
    r"hub_?spot|sales_?force|intercom|mail_?chimp|active_?campaign|get_?response|google[_ ]?sheets|monday[._]com"
    r"|air_?table|question_?pro|(?-i:Slack)|slack\.com|[\"']slack[\"']",
    re.IGNORECASE,
)
DIRECT_CLOCKS = {"date.today", "datetime.now", "datetime.today", "datetime.utcnow", "time.time", "time.time_ns"}


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @property
    def layer(self) -> str:
        return self.path.split("/", 1)[0]

    @property
    def package(self) -> list[str]:
        """The package this module's relative imports start from."""
        return self.path.split("/")[:-1]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything imported, `from a import b` as `a.b`, dynamic imports included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                base = self._base_of(node)
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}"
            elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
                for argument in node.args[:1]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield node.lineno, argument.value

    def _base_of(self, node: ast.ImportFrom) -> str:
        above = self.package[: len(self.package) - node.level + 1] if node.level else []
        return ".".join([*above, *([node.module] if node.module else [])])


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute chain, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else node.attr
    return ""


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_any_of(name: str, packages: set[str]) -> bool:
    return any(is_of(name, package) for package in packages)


Rule = Callable[[Source], Iterator[str]]


def imports_point_one_way(source: Source) -> Iterator[str]:
    """web, webhooks -> connectors -> core; nothing of the service imports its tests or benchmarks."""
    allowed = MAY_IMPORT[source.layer]
    for line, name in source.imports():
        first = name.split(".", 1)[0]
        if first in {*LAYERS, "tests", "bench", "wsgi"} and first not in allowed:
            yield f"{source.path}:{line} {source.layer} imports {name}"
        if first == "webhooks" and source.layer == "web" and source.path not in IMPORTS_WEBHOOKS:
            yield f"{source.path}:{line} imports {name}; only {', '.join(sorted(IMPORTS_WEBHOOKS))} wire receivers in"


def core_imports_no_web_and_no_network(source: Source) -> Iterator[str]:
    if source.layer != "core":
        return
    for line, name in source.imports():
        if is_any_of(name, NOT_IN_CORE):
            yield f"{source.path}:{line} core imports {name}"


def storage_libraries_stay_in_storage(source: Source) -> Iterator[str]:
    if source.path.startswith("core/storage/"):
        return
    for line, name in source.imports():
        if is_any_of(name, STORAGE_LIBRARIES):
            yield f"{source.path}:{line} imports {name}; databases are spoken to in core/storage alone"


def core_names_no_vendor(source: Source) -> Iterator[str]:
    """Not in code, not in a string, not in a comment."""
    if source.layer != "core":
        return
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        found = VENDOR_NAME.search(token.string)
        if found and token.type in {tokenize.NAME, tokenize.STRING, tokenize.COMMENT}:
            yield f"{source.path}:{token.start[0]} core names {found.group()}"


def core_decides_nothing_by_kind(source: Source) -> Iterator[str]:
    """What a connector can do is asked of its capabilities; `kind == "csv"` is a special case in the wrong room."""
    if source.layer != "core":
        return
    constants = module_constants(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(is_kind(side) for side in sides):
                for kind in sorted({kind for side in sides for kind in strings_in(side, constants)} & CONNECTOR_KINDS):
                    yield f"{source.path}:{node.lineno} core compares a kind with {kind!r}"
        elif isinstance(node, ast.Match) and is_kind(node.subject):
            patterns = {kind for case in node.cases for kind in strings_in(case.pattern, constants)}
            for kind in sorted(patterns & CONNECTOR_KINDS):
                yield f"{source.path}:{node.lineno} core matches a kind with {kind!r}"


def module_constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Values of the module's own assignments, so that `kind in LOCAL_KINDS` is seen through."""
    values: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            values |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            values[node.target.id] = node.value
    return values


def is_kind(node: ast.expr) -> bool:
    """`kind`, `connection.kind`, `row["kind"]`, `connection_kind`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "kind"
    return dotted(node).rsplit(".", 1)[-1].lower().endswith("kind")


def strings_in(node: ast.AST, constants: dict[str, ast.expr]) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            found.add(inner.value)
        elif isinstance(inner, ast.Name) and inner.id in constants:
            found |= {leaf.value for leaf in ast.walk(constants[inner.id]) if is_string(leaf)}  # type: ignore[attr-defined]
    return found


def is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def sdks_stay_in_their_connector(source: Source) -> Iterator[str]:
    for line, name in source.imports():
        vendor = SDK_OF.get(name.split(".", 1)[0])
        home = f"connectors/{vendor}"
        if vendor and not (source.path == f"{home}.py" or source.path.startswith(f"{home}/")):
            yield f"{source.path}:{line} imports {name}; that library belongs in {home} alone"


def pure_core_does_no_storage(source: Source) -> Iterator[str]:
    """Modules directly in core decide; rooms below it remember."""
    if source.layer != "core" or source.path.count("/") != 1:
        return
    for line, name in source.imports():
        if is_any_of(name, {"core.storage", "core.jobs", "core.engines"}):
            yield f"{source.path}:{line} a pure module imports {name}"


def receivers_call_nobody(source: Source) -> Iterator[str]:
    """A receiver may use its connector's pure mapping and the Python standard library, never the network."""
    if source.layer != "webhooks":
        return
    for line, name in source.imports():
        if is_any_of(name, NETWORK):
            yield f"{source.path}:{line} a receiver imports {name}"
        if is_of(name, "connectors") and not re.match(r"connectors\.\w+\.mapping(\.|$)", name):
            yield f"{source.path}:{line} a receiver imports {name}; only connectors.<vendor>.mapping is pure"


def everybody_asks_the_clock(source: Source) -> Iterator[str]:
    """BOUCLE_CLOCK_OFFSET moves every rule, or none can be tried: the time is core.clock's to tell."""
    if source.layer == "connectors" or source.path == "core/clock.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            called = ".".join(dotted(node.func).split(".")[-2:])
            if called in DIRECT_CLOCKS:
                yield f"{source.path}:{node.lineno} calls {called}(); ask core.clock"


RULES: tuple[Rule, ...] = (
    imports_point_one_way,
    core_imports_no_web_and_no_network,
    storage_libraries_stay_in_storage,
    core_names_no_vendor,
    core_decides_nothing_by_kind,
    sdks_stay_in_their_connector,
    pure_core_does_no_storage,
    receivers_call_nobody,
    everybody_asks_the_clock,
)


def sources(layer: str) -> list[Source]:
    return [
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / layer).rglob("*.py"))
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_file_keeps_the_rule(layer: str, rule: Rule) -> None:
    files = sources(layer)
    if not files:
        pytest.skip(f"{layer}/ holds no code yet")
    assert [complaint for source in files for complaint in rule(source)] == []


# --- The rules themselves --------------------------------------------------------------------------------------------

BAD = [
    (imports_point_one_way, "core/scores.py", "from connectors.base import Connector"),
    (imports_point_one_way, "core/jobs/deliver.py", "def f():\n    import web.app"),
    (imports_point_one_way, "core/jobs/deliver.py", "import importlib\nimportlib.import_module('connectors.smtp')"),
    (imports_point_one_way, "core/jobs/deliver.py", "from ...connectors import base"),
    (imports_point_one_way, "connectors/smtp.py", "from webhooks import signatures"),
    (imports_point_one_way, "webhooks/routes.py", "from web.app import create_app"),
    (imports_point_one_way, "web/admin/views.py", "from webhooks.base import Receiver"),
    (imports_point_one_way, "web/app.py", "from tests.simulators import smtp"),
    (core_imports_no_web_and_no_network, "core/scores.py", "from flask import g"),
    (core_imports_no_web_and_no_network, "core/engines/local.py", "import requests"),
    (core_imports_no_web_and_no_network, "core/engines/local.py", "from http import client"),
    (storage_libraries_stay_in_storage, "core/jobs/deliver.py", "from sqlalchemy import select"),
    (storage_libraries_stay_in_storage, "web/cli.py", "import alembic.command"),
    (core_names_no_vendor, "core/ports.py", "# as HubSpot does"),
    (core_names_no_vendor, "core/ports.py", "def f():\n    return 'salesforce'"),
    (core_names_no_vendor, "core/ports.py", "mail_chimp_id = 1"),
    (core_names_no_vendor, "core/ports.py", "class SlackNotice: ..."),
    (core_names_no_vendor, "core/ports.py", "KIND = 'slack'"),
    (core_names_no_vendor, "core/ports.py", "URL = 'https://api.monday.com'"),
    (core_decides_nothing_by_kind, "core/jobs/deliver.py", "if connection.kind == 'csv':\n    pass"),
    (core_decides_nothing_by_kind, "core/jobs/deliver.py", "if row['kind'] in ('smtp', 'mailbox'):\n    pass"),
    (core_decides_nothing_by_kind, "core/workspace.py", "LOCAL = {'csv'}\nok = kind in LOCAL"),
    (core_decides_nothing_by_kind, "core/workspace.py", "match kind:\n    case 'monday' | 'x':\n        pass"),
    (sdks_stay_in_their_connector, "connectors/smtp.py", "from hubspot import HubSpot"),
    (sdks_stay_in_their_connector, "connectors/mailchimp.py", "import simple_salesforce"),
    (sdks_stay_in_their_connector, "web/cli.py", "import mailchimp_marketing as client"),
    (pure_core_does_no_storage, "core/frequency.py", "from core.storage import store"),
    (pure_core_does_no_storage, "core/frequency.py", "from .jobs.context import Context"),
    (receivers_call_nobody, "webhooks/hubspot.py", "from connectors.hubspot.client import Client"),
    (receivers_call_nobody, "webhooks/hubspot.py", "import requests"),
    (receivers_call_nobody, "webhooks/hubspot.py", "from urllib import request"),
    (everybody_asks_the_clock, "core/jobs/sweep.py", "from datetime import datetime\nnow = datetime.now()"),
    (everybody_asks_the_clock, "web/survey/views.py", "import time\nnow = time.time()"),
]

GOOD = [
    (imports_point_one_way, "web/app.py", "from webhooks.routes import blueprint\nfrom core.clock import Clock"),
    (imports_point_one_way, "core/jobs/deliver.py", "from ..storage import store\nfrom core import ports"),
    (core_imports_no_web_and_no_network, "web/app.py", "from flask import Flask"),
    (core_imports_no_web_and_no_network, "core/ids.py", "from urllib.parse import quote\nimport email.message"),
    (storage_libraries_stay_in_storage, "core/storage/store.py", "from sqlalchemy import text"),
    (core_names_no_vendor, "core/audience.py", "DAYS = ('monday', 'tuesday')  # a customer's own tools"),
    (core_names_no_vendor, "core/jobs/sweep.py", "SLACK_MINUTES = 5  # some slack for late answers"),
    (core_names_no_vendor, "connectors/hubspot.py", "class HubSpot: ..."),
    (core_decides_nothing_by_kind, "core/jobs/deliver.py", "if delivery.kind == 'send':\n    pass"),
    (core_decides_nothing_by_kind, "core/jobs/deliver.py", "if file.suffix == 'csv':\n    pass"),
    (sdks_stay_in_their_connector, "connectors/hubspot/client.py", "import hubspot"),
    (sdks_stay_in_their_connector, "connectors/__init__.py", "from connectors.hubspot import HubSpot"),
    (pure_core_does_no_storage, "core/jobs/sweep.py", "from core.storage import store"),
    (receivers_call_nobody, "webhooks/hubspot.py", "from connectors.hubspot.mapping import contact_of\nimport hmac"),
    (everybody_asks_the_clock, "core/clock.py", "import time\nnow = time.time()"),
    (everybody_asks_the_clock, "web/cli.py", "import time\nstart = time.monotonic()\nnow = clock.now()"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_rule_finds_a_breach(rule: Rule, path: str, text: str) -> None:
    complaints = list(rule(Source(path, text)))
    assert complaints
    assert complaints[0].startswith(f"{path}:")


@pytest.mark.parametrize(("rule", "path", "text"), GOOD, ids=lambda value: getattr(value, "__name__", None))
def test_rule_leaves_good_code_alone(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_is_proved_both_ways() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES) == {rule for rule, _, _ in GOOD}


def test_kinds_of_the_registry_are_known_here() -> None:
    registry = ROOT / "connectors" / "__init__.py"
    if not registry.exists():
        pytest.skip("connectors/ holds no registry yet")
    listed = module_constants(ast.parse(registry.read_text(encoding="utf-8"))).get("CONNECTORS")
    assert isinstance(listed, ast.Dict), "connectors/__init__.py should assign the CONNECTORS dictionary"
    kinds = {key.value for key in listed.keys if isinstance(key, ast.Constant)}
    assert kinds
    assert kinds <= CONNECTOR_KINDS
