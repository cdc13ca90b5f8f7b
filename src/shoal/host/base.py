"""The Host protocol: what can be asked of a machine, wherever it is."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shoal.errors import CommandFailed, ShoalError


@dataclass(frozen=True)
class Result:
    """A command that ended: its argv, exit code and output.

    ``code`` is what a shell would say: 127 for a program that does not exist, 126 for one that may not be run, and
    128 + n where signal n ended it. Bytes that are no text are replaced in ``out`` and ``err``; ``data`` has them.
    """

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    raw: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, argv: tuple[str, ...], code: int, out: bytes, err: bytes) -> "Result":
        """What a process left."""
        return cls(argv, code, text(out), text(err), out)

    @property
    def data(self) -> bytes:
        """The output as it came, for what is not text: an archive, a capture."""
        return self.out.encode() if self.raw is None else self.raw

    def require(self, ok: Container[int], host: str) -> "Result":
        """Itself, or CommandFailed where the exit code is not one of ``ok``."""
        if self.code in ok:
            return self
        tail = (self.err or self.out).strip().splitlines()[-3:]
        raise CommandFailed(
            f"{host}: {' '.join(self.argv)} ended with code {self.code}", why=" | ".join(tail) or "it printed nothing"
        )


class Talk(Protocol):
    """A program that runs, and that is spoken with while it does. Its end is the end of its input."""

    def send(self, data: bytes) -> None:
        """Write to its standard input, all of it; what has ended hears nothing, and that is no error here."""

    def line(self) -> str | None:
        """The next line of its output, without its end; None when there are no more."""
        ...

    def ended(self) -> tuple[str, int]:
        """What it said as an error, and its code, once :meth:`line` has said None."""
        ...

    def blame(self) -> ShoalError:
        """Why it ended, once :meth:`line` has said None."""
        ...

    def close(self) -> None:
        """End its input, wait a little for its end, and then kill it."""


class Host(Protocol):
    """A machine. Transport failure is HostUnreachable or TimedOut; a command's own failure is CommandFailed."""

    @property
    def name(self) -> str:
        """What the machine is called in messages."""
        ...

    def run(
        self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,), input: str | bytes | None = None
    ) -> Result:
        """Run a command to its end, ``timeout`` in seconds; ``input`` is what it reads, by default nothing."""
        ...

    def start(self, argv: Sequence[str]) -> Talk:
        """Start a command that is spoken with. Whatever is wrong with it is told by the talk's ``blame``."""
        ...

    def read(self, path: str) -> str | None:
        """Text of a file, undecodable bytes replaced; None where it does not exist or may not be read."""
        ...

    def read_bytes(self, path: str) -> bytes | None:
        """Content of a file; None where it does not exist or may not be read."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; empty where it does not exist or may not be read."""
        ...

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file in one step: readers see the old or the new content, never a part.

        Raises:
            WriteFailed: all is as it was before.
        """
        ...


def text(data: bytes) -> str:
    """Bytes as text; those that are none become replacement marks."""
    return data.decode("utf-8", errors="replace")


def encoded(content: str | bytes) -> bytes:
    """Text as the bytes that are written."""
    return content.encode() if isinstance(content, str) else content
