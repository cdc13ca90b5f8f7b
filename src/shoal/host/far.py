"""A machine that commands are carried to: what ssh and the prefixes have in common.

A carrier says too little. ssh answers 255 for its own failure and for a command's, a login shell prints what it likes
before the command does, and a command lives on when its carrier is killed. So the far side runs a small script: it
marks where the command's output begins, ends the command at its deadline, and says its code in its own words. Where
that word is missing, the command was never run or never ended, and the carrier has told why.
"""

import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from shoal.errors import CommandFailed, HostUnreachable, ShoalError, TimedOut, WriteFailed
from shoal.host.base import Host, Result, Talk, encoded, text

FILE_DEADLINE = 60.0  # seconds for reading, listing or writing one file
KILLED = 137

MARK = "<shoal>"
# KILL goes to the command's whole process group, and to `timeout` itself.
RUN = r"""printf %s "$0"; printf %s "$0" >&2; timeout -s KILL "$@"; printf '%s%d' "$0" "$?" >&2"""
# Names end with a NUL, since they may hold line ends; a pattern without a match stands for itself.
LIST = (
    r'cd -- "$0" || exit 1; for name in * .[!.]* ..?*; do '
    r"""if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\0' "$name"; fi; done; exit 0"""
)
# The size is checked, since a broken connection ends the input early.
WRITE = (
    r'[ ! -d "$0" ] || { echo "Is a directory" >&2; exit 1; }; part=$(mktemp -- "$1") || exit 1; '
    r"""trap 'rm -f -- "$part"' EXIT; cat > "$part" && [ "$(wc -c < "$part")" -eq "$2" ] && """
    r'chmod -- "$3" "$part" && mv -f -- "$part" "$0"'
)


@dataclass(frozen=True)
class Cause:
    """Why a carrier failed: what it says then, what that means, and what mends it (``{host}`` is the host)."""

    pattern: str
    why: str
    fix: str


class FarHost(ABC):
    """A machine that ``inner`` carries commands to, as argv; files are read and written by POSIX commands there.

    The far side needs ``sh`` and coreutils' or busybox's ``timeout``. A command may hold 128 KiB; more goes by input.
    """

    causes: tuple[Cause, ...] = ()
    grace: float  # seconds beyond a command's deadline, for the way there and back

    def __init__(self, name: str, inner: Host, *, address: str = "") -> None:
        self.name = name
        self._inner = inner
        self._address = address or name

    @abstractmethod
    def carry(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command which, run on the inner host, runs ``argv`` on this one."""

    def run(
        self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,), input: str | bytes | None = None
    ) -> Result:
        """Run a command to its end. At the deadline its process group is killed over there.

        Raises:
            HostUnreachable: the command was not run, or the connection broke before it ended.
        """
        argv, began = tuple(argv), time.monotonic()
        late = TimedOut(f"{self.name}: {' '.join(argv)} did not end within {timeout:g} s")
        carried = self.carry(("sh", "-c", RUN, MARK, f"{timeout:g}", *argv))
        try:
            told = self._inner.run(carried, timeout=timeout + self.grace, ok=range(256), input=input)
        except TimedOut as error:
            late.why = f"{self.name} did not even say that it killed it: the connection hangs"
            raise late from error
        result = self._unwrap(argv, told)
        if result.code == KILLED and time.monotonic() - began >= timeout:
            raise late
        return result.require(ok, self.name)

    def start(self, argv: Sequence[str]) -> Talk:
        """Start a command that is spoken with. It is not wrapped: it ends with its input, or by its own clock."""
        return FarTalk(self._inner.start(self.carry(tuple(argv))), self._unreachable)

    def _unwrap(self, argv: tuple[str, ...], told: Result) -> Result:
        """The command's own result, out of the carrier's."""
        before, begun, rest = told.err.partition(MARK)
        err, _, code = rest.rpartition(MARK)
        if not code.isdigit():
            # A login that is refused may say so as output.
            said = before + rest if begun else told.err or told.out
            raise self._unreachable(said.replace("\r", ""), told.code, begun=bool(begun))
        out = told.data.partition(MARK.encode())[2]
        return Result(argv, int(code), text(out), err, out)

    def _unreachable(self, said: str, code: int, *, begun: bool) -> HostUnreachable:
        what = f"{self.name} broke off in the middle of a command" if begun else f"{self.name} cannot be reached"
        for cause in self.causes:
            if found := re.search(cause.pattern, said):
                words = {**found.groupdict(), "host": self._address}
                return HostUnreachable(what, why=cause.why.format(**words), fix=cause.fix.format(**words))
        lines = said.strip().splitlines()[-3:] or [f"it ended with code {code} and said nothing"]
        return HostUnreachable(what, why=" | ".join(lines), fix=f"try by hand: {self.by_hand()}")

    def by_hand(self) -> str:
        """What a user types to see for himself whether a command gets through."""
        return " ".join(self.carry(("true",)))

    def read(self, path: str) -> str | None:
        """Text of a file, or None."""
        content = self.read_bytes(path)
        return None if content is None else text(content)

    def read_bytes(self, path: str) -> bytes | None:
        """Content of a file, or None."""
        result = self.run(["cat", "--", path], timeout=FILE_DEADLINE, ok=(0, 1))
        return result.data if result.code == 0 else None

    def list(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder, or nothing."""
        result = self.run(["sh", "-c", LIST, path], timeout=FILE_DEADLINE, ok=(0, 1, 2))
        return tuple(sorted(os.fsdecode(name) for name in result.data.split(b"\0")[:-1]))

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file in one step. Until it is whole and has its ``mode``, only its owner can read it."""
        data, target = encoded(content), PurePosixPath(path)
        part = str(target.parent / f".{target.name}.XXXXXX")
        argv = ("sh", "-c", WRITE, str(target), part, str(len(data)), f"{mode:o}")
        # A slow line of 1 MB/s gets through as well.
        deadline = FILE_DEADLINE + math.ceil(len(data) / 1e6)
        try:
            self.run(argv, timeout=deadline, input=data)
        except CommandFailed as error:
            raise WriteFailed(
                f"{self.name}: {path} could not be written",
                why=error.why,
                fix=f"on {self.name}: ls -ld {target.parent}; df -h {target.parent}",
            ) from error


class FarTalk:
    """A command on a far machine that is spoken with."""

    def __init__(self, inner: Talk, unreachable: Callable[..., HostUnreachable]) -> None:
        self._inner, self._unreachable, self._begun = inner, unreachable, False
        self.send, self.close = inner.send, inner.close

    def line(self) -> str | None:
        """The next line, or None at the end."""
        line = self._inner.line()
        self._begun = self._begun or line is not None
        return line

    def ended(self) -> tuple[str, int]:
        """What was said as an error, and the code."""
        return self._inner.ended()

    def blame(self) -> ShoalError:
        """The carrier's cause, where that is known."""
        said, code = self.ended()
        return self._unreachable(said.replace("\r", ""), code, begun=self._begun)
