"""The documents are true: pages made from the code are fresh, what they name exists, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from core.workspace_file import Surroundings, parse_workspace_file
from tests.web.app import Installation
from tools.docs import PAGES, write_pages
from web.cli import COMMANDS, Commands
from web.wiring import Catalogue, prepare_database

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
#: `flask people erase --json`, in prose or in a block; a word in capitals is something the reader fills in.
FLASK = re.compile(
    r"\bflask ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*(?![\w.-]))?)((?: (?:--?[a-z][a-z-]*|[A-Z][A-Z.]*|\S+\.toml))*)"
)
RUN = re.compile(r"\./run ([a-z]+)\b")
VARIABLE = re.compile(r"\bBOUCLE_[A-Z_]+\b")
#: Read by the tests and by nothing else.
TEST_VARIABLES = {"BOUCLE_LONG_DRILLS", "BOUCLE_TEST_DATABASE_URL"}


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return [ROOT / name for name in listed] or [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


DOCUMENTS = pytest.mark.parametrize("path", documents(), ids=name_of)


def test_pages_made_from_the_code_are_fresh() -> None:
    for name, page in PAGES.items():
        assert (ROOT / name).read_text(encoding="utf-8") == page(), f"{name} is stale: ./run docs"


def test_stale_page_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "connectors.md").write_text("stale")
    assert write_pages(tmp_path) == ["docs/connectors.md"]
    assert write_pages(tmp_path) == []


@DOCUMENTS
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in LINK.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        page = (path.parent / target).resolve() if target else path
        assert page.exists(), f"{name_of(path)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), f"{name_of(path)}: {link} names no heading"


def anchors(text: str) -> set[str]:
    """What a link may name: headings as they are slugged by the usual hosts, and ids that are written out."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]*>", "", one).lower()).strip().replace(" ", "-") for one in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def commands_named(text: str) -> Iterator[tuple[str, str, str]]:
    """(command, subcommand or "", the rest) of every `flask ...`."""
    for words, rest in FLASK.findall(text):
        command, _, sub = words.partition(" ")
        yield command, sub, rest


@DOCUMENTS
def test_commands_that_are_named_exist(path: Path) -> None:
    known = Commands("app")
    for name, sub, rest in commands_named(path.read_text(encoding="utf-8")):
        assert name in COMMANDS, f"{name_of(path)} names `flask {name}`, which does not exist"
        command = known.get_command(click.Context(known), name)
        assert command is not None
        if isinstance(command, click.Group) and sub:
            assert sub in command.commands, f"{name_of(path)} names `flask {name} {sub}`, which does not exist"
            command = command.commands[sub]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for option in re.findall(r"(?<= )--[a-z-]+", rest):
            assert option in options, f"{name_of(path)}: `flask {name}` has no {option}"


@DOCUMENTS
def test_run_knows_what_is_asked_of_it(path: Path) -> None:
    script = (ROOT / "run").read_text(encoding="utf-8")
    known = set(re.findall(r"^    ([a-z]+)(?: \|[^)]*)?\)", script, re.M))
    for name in RUN.findall(path.read_text(encoding="utf-8")):
        assert name in known, f"{name_of(path)} names `./run {name}`, which does not exist"


def variables_read() -> set[str]:
    """Variables of the environment that the service or `./run` reads."""
    sources = [ROOT / "run", *(ROOT / "web").rglob("*.py")]
    return set(VARIABLE.findall("\n".join(one.read_text(encoding="utf-8") for one in sources)))


@DOCUMENTS
def test_variables_that_are_named_are_read(path: Path) -> None:
    named = set(VARIABLE.findall(path.read_text(encoding="utf-8")))
    assert not named - variables_read() - TEST_VARIABLES


def test_example_of_the_environment_names_what_is_read() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(VARIABLE.findall(example)) <= variables_read()
    lines = [line for line in example.splitlines() if line]
    assert all(line.startswith("#") for line in lines), "copied as it is, it must change nothing"


def test_every_setting_of_the_environment_is_explained() -> None:
    """`BOUCLE_EMBEDDED_WORKER` and the clock are for those who run it without `./run`: operations alone has them."""
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    read = set(re.findall(r'"((?:BOUCLE_|DATABASE_)[A-Z_]+|PORT)"', (ROOT / "web" / "settings.py").read_text()))
    missing = {name for name in read if f"| `{name}` |" not in operations}
    assert not missing


def workspace_files() -> Iterator[tuple[str, str]]:
    """Every workspace file that stands in a document."""
    for path in documents():
        for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            yield name_of(path), block


def test_workspace_files_in_the_documents_are_accepted() -> None:
    found = list(workspace_files())
    assert found
    for name, block in found:
        parse_workspace_file(block, name, ROOT, Surroundings(Catalogue()))


def test_proxy_lets_through_what_respondents_and_vendors_need_and_nothing_else(tmp_path: Path) -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (public,) = re.findall(r"location ~ (\S+) \{", operations)
    site = Installation(tmp_path)
    prepare_database(site.settings)
    app = site.app()
    for rule in app.url_map.iter_rules():
        blueprint = rule.endpoint.partition(".")[0]
        is_public = re.match(public, rule.rule) is not None
        assert is_public == (blueprint in ("survey", "webhooks")), rule.rule
    app.extensions["boucle"].store.close()


@pytest.mark.parametrize("name", ["README.md"])
def test_trademark_notice_stands_in_the_readme(name: str) -> None:
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    for owner in ("Bain & Company", "NICE Systems", "Fred Reichheld"):
        assert owner in text
    assert "registered trademarks" in text


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert list(commands_named("run `flask aply x.toml` or `./run flask people erase ADDRESS --json`.")) == [
        ("aply", "", " x.toml"),
        ("people", "erase", " ADDRESS --json"),
    ]
