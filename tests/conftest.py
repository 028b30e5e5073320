"""What every test can count on: no setting of the caller's leaks in, and skipped browser tests are counted aloud."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

# These two steer the suite itself; every other setting of the service would change what is tested.
KEPT = {"BOUCLE_LONG_DRILLS", "BOUCLE_TEST_DATABASE_URL"}
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def settings_of_the_caller(names: Sequence[str]) -> list[str]:
    """Which of these environment variables a test must not see."""
    return [
        name
        for name in names
        if (name.startswith(("BOUCLE_", "FLASK_")) or name in {"DATABASE_URL", "PORT"}) and name not in KEPT
    ]


def find_chromium() -> Path | None:
    """The installed Chromium, or None. Playwright never downloads one here."""
    for name in CHROMIUM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller's settings before any module of the service is imported."""
    for name in settings_of_the_caller(list(os.environ)):
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a Chromium, browser tests skip."""
    if find_chromium():
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium is installed"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many browser tests did not run: a silent skip looks like a pass."""
    skipped = sum("browser" in report.keywords for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(
            f"{skipped} browser test{'s' if skipped > 1 else ''} skipped: install Chromium to run them"
        )


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of the browser, for `executable_path`; use it in tests marked `browser`."""
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture(scope="session")
def long_drills() -> bool:
    """True where BOUCLE_LONG_DRILLS=1 asks for the long form of the drills."""
    return os.environ.get("BOUCLE_LONG_DRILLS") == "1"
