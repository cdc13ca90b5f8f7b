"""The Host protocol: what can be asked of a machine, wherever it is."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal.errors import CommandFailed


@dataclass(frozen=True)
class Result:
    """A command that ended: its argv, exit code and output."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def require(self, ok: Container[int], host: str) -> "Result":
        """Itself, or CommandFailed where the exit code is not one of ``ok``."""
        if self.code in ok:
            return self
        tail = (self.err or self.out).strip().splitlines()[-3:]
        raise CommandFailed(
            f"{host}: {' '.join(self.argv)} ended with code {self.code}", why=" | ".join(tail) or "it printed nothing"
        )


class Host(Protocol):
    """A machine. Transport failure is HostUnreachable or TimedOut; a command's own failure is CommandFailed."""

    @property
    def name(self) -> str:
        """What the machine is called in messages."""
        ...

    def run(self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,)) -> Result:
        """Run a command to its end, ``timeout`` in seconds. Code 127 where the program does not exist."""
        ...

    def read(self, path: str) -> str | None:
        """Text of a file, undecodable bytes replaced; None where it does not exist or may not be read."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; empty where it does not exist or may not be read."""
        ...

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in one step: readers see the old or the new content, never a part."""
        ...
