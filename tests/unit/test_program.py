"""How agent and supervisor begin and end as programs."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shoal.agent.program import EX_CONFIG, UNHEALTHY_SECONDS, Start, run
from shoal.errors import ConfigError, PreconditionFailed, ShoalError
from shoal.log import EventLog


def ends(code: int = 0, error: ShoalError | None = None) -> Callable[[], Start]:
    """A program that ends with this code, or with this error."""

    def start(log: EventLog) -> Coroutine[Any, Any, int]:
        async def work() -> int:
            log("up", "here with hunter2hunter2")
            if error is not None:
                raise error
            return code

        return work()

    return lambda: start


def malformed() -> Start:
    """A program whose settings are wrong."""
    raise ConfigError("RAY_MODE is not set", fix="set it")


def test_the_exit_code_is_the_programs() -> None:
    """What the program returns is the exit code."""
    assert run({}, ends(0)) == 0
    assert run({}, ends(7)) == 7


def test_trouble_is_one_line_and_one(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of ours ends the program with 1 and one line, never a traceback."""
    assert run({}, ends(error=PreconditionFailed("cannot listen", why="taken", fix="free it"))) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("FAILED     error: cannot listen; why: taken; fix: free it")


def test_malformed_settings_are_no_hot_loop() -> None:
    """In a container malformed settings keep the program unhealthy for a minute before it ends with 78."""
    slept: list[float] = []
    assert run({}, malformed, slept.append) == EX_CONFIG
    assert slept == [UNHEALTHY_SECONDS]


def test_malformed_settings_end_at_once_where_somebody_watches() -> None:
    """Started by `shoal up`, malformed settings end the program at once."""
    slept: list[float] = []
    assert run({"SHOAL_RUN_ID": "x"}, malformed, slept.append) == EX_CONFIG
    assert slept == []


def test_secrets_of_the_environment_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """A secret of the environment that gets into a message is masked, in JSON too."""
    run({"HF_TOKEN": "hunter2hunter2", "SHOAL_LOG": "json"}, ends(0))
    assert json.loads(capsys.readouterr().out)["message"] == "here with ********"
