"""What all tests share: golden files, no network for the unit tests, hypothesis without a clock, no silent skip."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"

Golden = Callable[[str, object], None]

# A slow machine is no failure; under CI every run tries the same examples.
settings.register_profile("shoal", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("shoal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write the golden files anew; look at the diff afterwards")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # asyncio makes a pair of unix sockets for each event loop. pytest-socket reads the option after this.
    config.option.allow_unix_socket = True
    # A shell starts what it puts into the background with Ctrl-C ignored, and so would be all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No unit test reaches a network, unless it is marked ``enable_socket``."""
    for item in items:
        if item.path.is_relative_to(TESTS / "unit"):
            item.add_marker(pytest.mark.disable_socket)


def skips(config: pytest.Config) -> list[str]:
    """What was skipped, with the reason, where ``SHOAL_TEST_ALL=1`` says that nothing may be."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SHOAL_TEST_ALL") != "1" or reporter is None:
        return []
    # The reason of a skip is the last of three: file, line, reason.
    reports = reporter.stats.get("skipped", [])
    return [f"{report.nodeid}: {report.longrepr[-1].removeprefix('Skipped: ')}" for report in reports]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that passed, but for what it skipped, has failed."""
    if skips(session.config) and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in skips(terminalreporter.config):
        terminalreporter.write_line(f"SHOAL_TEST_ALL=1, and yet skipped: {line}", red=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a whole value with the golden file of that name; ``--update`` writes the file instead."""

    def check(name: str, value: object) -> None:
        file = GOLDEN / name
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        if request.config.getoption("--update"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.is_file(), f"there is no {file}: run pytest --update"
        assert json.loads(text) == json.loads(file.read_text(encoding="utf-8")), f"{file} differs: pytest --update?"

    return check
