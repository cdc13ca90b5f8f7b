"""This machine. The one place where commands are spawned."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from shoal.errors import TimedOut
from shoal.host.base import Result


class LocalHost:
    """The machine this process runs on."""

    name = "localhost"

    def run(self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,)) -> Result:
        """Run a command to its end. At the deadline its whole process group is killed."""
        argv = tuple(argv)
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except (FileNotFoundError, NotADirectoryError):
            return Result(argv, 127, "", f"{argv[0]}: not found").require(ok, self.name)
        except PermissionError as error:
            return Result(argv, 126, "", str(error)).require(ok, self.name)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise TimedOut(f"{self.name}: {' '.join(argv)} did not end within {timeout:g} s") from error
        return Result(argv, child.returncode, _text(out), _text(err)).require(ok, self.name)

    def read(self, path: str) -> str | None:
        """Text of a file, or None."""
        try:
            return _text(Path(path).read_bytes())
        except OSError:
            return None

    def list(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder, or nothing."""
        try:
            return tuple(sorted(entry.name for entry in Path(path).iterdir()))
        except OSError:
            return ()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in one step, with ``mode`` from its first byte on."""
        target = Path(path)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(handle, mode)
                file.write(text)
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def spawn_daemon(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> int:
    """Start a program that outlives this one, in a session of its own, output appended to ``log``.

    Returns:
        Its process id. The caller remembers it: nothing else will.
    """
    with log.open("ab") as out:
        child = subprocess.Popen(
            tuple(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Nobody waits for it here; without this, Python warns of a child still running when the object goes.
    child.returncode = 0
    return child.pid
