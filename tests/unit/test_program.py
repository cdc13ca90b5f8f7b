"""How agent and supervisor begin and end as programs."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shoal.agent.program import EX_CONFIG, PAUSE, Start, run
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
    """An error of ours ends the program with 1 and one line, never a traceback; before it runs as after."""
    trouble = PreconditionFailed("cannot listen", why="taken", fix="free it")

    def at_once() -> Start:
        raise trouble

    for program in (ends(error=trouble), at_once):
        assert run({}, program, [].append) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.endswith("FAILED     error: cannot listen; why: taken; fix: free it")


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (malformed, EX_CONFIG),
        (ends(error=ConfigError("unknown option")), EX_CONFIG),
        (ends(error=PreconditionFailed("x")), 1),
    ],
)
def test_an_end_by_error_is_no_hot_loop(program: Callable[[], Start], code: int) -> None:
    """In a container the program stays for a while before it ends: a minute where settings are malformed."""
    slept: list[float] = []
    assert run({}, program, slept.append) == code
    assert slept == [{EX_CONFIG: 60.0, 1: 10.0}[code]]
    assert PAUSE[code] == slept[0]


def test_an_error_ends_the_program_at_once_where_somebody_watches() -> None:
    """Started by `shoal up`, malformed settings and trouble end the program at once."""
    slept: list[float] = []
    assert run({"SHOAL_RUN_ID": "x"}, malformed, slept.append) == EX_CONFIG
    assert run({"SHOAL_RUN_ID": "x"}, ends(error=PreconditionFailed("x")), slept.append) == 1
    assert slept == []


def test_secrets_of_the_environment_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """A secret of the environment that gets into a message is masked, in JSON too."""
    run({"HF_TOKEN": "hunter2hunter2", "SHOAL_LOG": "json"}, ends(0))
    assert json.loads(capsys.readouterr().out)["message"] == "here with ********"
