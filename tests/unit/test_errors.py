"""The error family."""

import pytest

from shoal import errors
from shoal.errors import ShoalError


def test_an_error_reads_what_why_and_fix_on_a_line_each() -> None:
    """An error as text is what happened, why, and the command that mends it."""
    error = ShoalError("port 8000 is taken", why="nginx listens there", fix="shoal up --port 8001")
    assert str(error) == "port 8000 is taken\nwhy: nginx listens there\nfix: shoal up --port 8001"


@pytest.mark.parametrize(
    ("why", "fix", "text"),
    [("", "", "it broke"), ("old", "", "it broke\nwhy: old"), ("", "mend it", "it broke\nfix: mend it")],
)
def test_what_is_not_known_has_no_line(why: str, fix: str, text: str) -> None:
    """A reason or a remedy that is not known leaves no empty line."""
    assert str(ShoalError("it broke", why=why, fix=fix)) == text


def test_the_family_and_its_exit_codes() -> None:
    """Every error has the parent and the exit code that the family's drawing gives it."""
    family = {
        name: (kind.__bases__[0].__name__, kind.exit_code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ShoalError)
    }
    assert family == {
        "ShoalError": ("Exception", 1),
        "UsageError": ("ShoalError", 2),
        "ConfigError": ("UsageError", 2),
        "HostError": ("ShoalError", 3),
        "HostUnreachable": ("HostError", 3),
        "CommandFailed": ("HostError", 3),
        "TimedOut": ("HostError", 3),
        "WriteFailed": ("HostError", 3),
        "NotRunning": ("ShoalError", 4),
        "AlreadyRunning": ("ShoalError", 4),
        "PreconditionFailed": ("ShoalError", 5),
        "StartFailed": ("ShoalError", 6),
    }


def test_the_drawing_shows_the_whole_family() -> None:
    """The drawing in the module's docstring names every error with its exit code."""
    drawn = {
        words[0]: int(words[1])
        for line in (errors.__doc__ or "").splitlines()
        if len(words := line.strip(" │├└─").split()) >= 2 and words[1].isdigit()
    }
    assert drawn == {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ShoalError)
    }
