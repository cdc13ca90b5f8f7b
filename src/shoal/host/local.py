"""This machine. The one place where commands are spawned."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from shoal.errors import TimedOut, WriteFailed
from shoal.host.base import Result, encoded, text


class LocalHost:
    """The machine this process runs on."""

    name = "localhost"

    def run(
        self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,), input: str | bytes | None = None
    ) -> Result:
        """Run a command to its end. At the deadline its whole process group is killed."""
        argv = tuple(argv)
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        try:
            child = subprocess.Popen(
                argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except (FileNotFoundError, NotADirectoryError):
            return Result(argv, 127, "", f"{argv[0]}: not found").require(ok, self.name)
        except OSError as error:  # it may not be run, is no program, or its arguments are too long
            return Result(argv, 126, "", str(error)).require(ok, self.name)
        try:
            out, err = child.communicate(None if input is None else encoded(input), timeout)
        except subprocess.TimeoutExpired as error:
            # Its pipes are closed unread: a descendant in a session of its own may hold them open for ever.
            with child:
                os.killpg(child.pid, signal.SIGKILL)
            raise TimedOut(f"{self.name}: {' '.join(argv)} did not end within {timeout:g} s") from error
        return Result.of(argv, _code(child.returncode), out, err).require(ok, self.name)

    def stream(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        on_line: Callable[[str], None],
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command and hand over each line of its output as it comes; any exit code is the caller's to judge.
        ``env`` is its whole environment, by default this process's own.

        Raises:
            TimedOut: it ran longer than ``timeout`` seconds; its process group was killed.
        """
        argv = tuple(argv)
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                argv,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            ) as child,
        ):
            lines = []
            watchdog = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGKILL))
            began = time.monotonic()
            watchdog.start()
            try:
                for raw in child.stdout or ():
                    lines.append(text(raw).rstrip("\n"))
                    on_line(lines[-1])
                code = child.wait()
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                raise
            finally:
                watchdog.cancel()
            if code == -signal.SIGKILL and time.monotonic() - began >= timeout:
                raise TimedOut(f"{self.name}: {' '.join(argv)} did not end within {timeout:g} s")
            errors.seek(0)
            return Result(argv, _code(code), "\n".join(lines), text(errors.read()))

    def attach(self, argv: Sequence[str]) -> int:
        """Run a command with this process's own input, output and terminal, however long it takes; its exit code.

        Ctrl-C reaches the command too, which decides what it means.
        """
        with subprocess.Popen(tuple(argv)) as child:
            while True:
                try:
                    return _code(child.wait())
                except KeyboardInterrupt:
                    continue

    def read(self, path: str) -> str | None:
        """Text of a file, or None."""
        content = self.read_bytes(path)
        return None if content is None else text(content)

    def read_bytes(self, path: str) -> bytes | None:
        """Content of a file, or None."""
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def list(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder, or nothing."""
        try:
            return tuple(sorted(entry.name for entry in Path(path).iterdir()))
        except OSError:
            return ()

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file in one step, with ``mode`` from its first byte on."""
        data, target = encoded(content), Path(path)
        try:
            _replace(target, data, mode)
        except OSError as error:
            raise WriteFailed(f"{self.name}: {path} could not be written", why=error.strerror or str(error)) from error


def _replace(target: Path, data: bytes, mode: int) -> None:
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
        Path(part).replace(target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned


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
