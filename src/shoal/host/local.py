"""This machine. The one place where commands are spawned."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from errno import ENOENT
from pathlib import Path

from shoal.errors import CommandFailed, TimedOut, WriteFailed
from shoal.host.base import Result, encoded, text

PATIENCE = 10.0  # seconds in which a program that was spoken with ends after its input


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

    def start(self, argv: Sequence[str]) -> "LocalTalk":
        """Start a command that is spoken with, in a session of its own."""
        return LocalTalk(self.name, tuple(argv))

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


class LocalTalk:
    """A command of this machine that is spoken with. One thread reads its lines; any may send."""

    def __init__(self, name: str, argv: tuple[str, ...]) -> None:
        self.name, self._argv, self._why = name, argv, ""
        self._child: subprocess.Popen[bytes] | None = None
        self._writing = threading.Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the talk
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            self._why = f"{argv[0]}: not found" if error.errno == ENOENT else f"{argv[0]}: {error.strerror or error}"

    def send(self, data: bytes) -> None:
        """Write all of it; another sender waits."""
        with self._writing, contextlib.suppress(OSError, ValueError):  # it has ended, or was closed
            if self._child and self._child.stdin:
                self._child.stdin.write(data)
                self._child.stdin.flush()

    def line(self) -> str | None:
        """The next line, or None at the end."""
        raw = self._child.stdout.readline() if self._child and self._child.stdout else b""
        return text(raw).rstrip("\n") if raw else None

    def ended(self) -> tuple[str, int]:
        """What it said as an error, and its code, once its output has ended."""
        if self._child is None:
            return self._why, 127
        self._errors.seek(0)
        return text(self._errors.read()), self._end()

    def blame(self) -> CommandFailed:
        """What it said last."""
        said, code = self.ended()
        why = " | ".join(said.strip().splitlines()[-3:]) or "it said nothing"
        return CommandFailed(f"{self.name}: {' '.join(self._argv[:2])} ended with code {code}", why=why)

    def close(self) -> None:
        """End its input and wait; a sender that hangs, or a program that does not end, is killed."""
        if self._child is None:
            return
        if not self._writing.acquire(timeout=PATIENCE):
            # Somebody writes to what reads no more, and is let go by this.
            os.killpg(self._child.pid, signal.SIGKILL)
            self._writing.acquire()
        with contextlib.suppress(OSError):
            if self._child.stdin:
                self._child.stdin.close()
        self._writing.release()
        self._end()
        if self._child.stdout:
            self._child.stdout.close()
        self._errors.close()

    def _end(self) -> int:
        """Its code, after a while by force."""
        assert self._child is not None
        try:
            return _code(self._child.wait(PATIENCE))
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            return _code(self._child.wait())


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
