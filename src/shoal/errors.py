"""The error family: what happened, why, the command that mends it, and the exit code.

    ShoalError                  1   something failed
    ├── UsageError              2   the call is wrong: flag, name or value
    │   └── ConfigError         2   a variable or a file holds a wrong value (agents exit 78: do not restart me)
    ├── HostError               3   a machine could not be asked
    │   ├── HostUnreachable     3
    │   ├── CommandFailed       3   the command ran and answered with a code that was not expected
    │   ├── TimedOut            3
    │   └── WriteFailed         3   a file could not be written; the old one is as it was
    ├── NotRunning              4   there is no cluster to talk to
    ├── AlreadyRunning          4   there is one already
    ├── PreconditionFailed      5   the machine is not fit for it: port taken, memory, engine missing
    └── StartFailed             6   it was started and did not come up

Only ``ui/`` turns one of these into text on a terminal and an exit code.
"""

from typing import ClassVar


class ShoalError(Exception):
    """Something failed, told so that a tired reader can act on it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class UsageError(ShoalError):
    """The call is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting or a file holds a value that cannot be used."""


class HostError(ShoalError):
    """A machine could not be asked."""

    exit_code = 3


class HostUnreachable(HostError):
    """No connection to the machine."""


class CommandFailed(HostError):
    """A command ended with a code that its caller did not expect."""


class TimedOut(HostError):
    """A command did not end within its deadline."""


class WriteFailed(HostError):
    """A file could not be written."""


class NotRunning(ShoalError):
    """No cluster is up."""

    exit_code = 4


class AlreadyRunning(ShoalError):
    """A cluster is up already."""

    exit_code = 4


class PreconditionFailed(ShoalError):
    """The machine is not fit to start on; nothing was started."""

    exit_code = 5


class StartFailed(ShoalError):
    """It was started, and did not come up. A local cluster was taken down again."""

    exit_code = 6
