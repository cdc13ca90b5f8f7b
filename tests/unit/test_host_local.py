"""What only this machine's own processes can show, beside what every Host keeps (tests/contract)."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shoal.errors import TimedOut, WriteFailed
from shoal.host.local import LocalHost

BIG = 1 << 20


def nest(file: Path, how: str = "") -> list[str]:
    """A command whose child tells its id and stays for a minute, with the command's output open."""
    return ["sh", "-c", f"{how} sleep 60 & echo $! > {file}; wait"]


def ended(pid: int) -> bool:
    """Whether a process ends within a few seconds; who reaps it is not our affair."""
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        time.sleep(0.005)
    return not psutil.pid_exists(pid)


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    """Where the grandchild writes its id; it is ended afterwards, should it still be there."""
    file = tmp_path / "pid"
    yield file
    text = file.read_text() if file.exists() else ""
    if text and psutil.pid_exists(int(text)):
        psutil.Process(int(text)).kill()


def test_a_grandchild_that_left_cannot_hold_the_deadline(pid_file: Path) -> None:
    """A descendant in a session of its own that keeps the output open does not keep us waiting."""
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        LocalHost().run(nest(pid_file, "setsid"), timeout=0.3)
    assert time.monotonic() - begun < 10


def test_a_signal_is_a_code_above_128() -> None:
    """A command that a signal ended has 128 and the signal's number as its code, as in a shell."""
    assert LocalHost().run(["sh", "-c", "kill -9 $$"], timeout=10, ok=(137,)).code == 137
    assert LocalHost().stream(["sh", "-c", "kill -9 $$"], timeout=10, on_line=print).code == 137


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """Undecodable bytes in files and output become replacement marks."""
    (tmp_path / "f").write_bytes(b"a\xff\n")
    host = LocalHost()
    assert [host.read(str(tmp_path / "f")), host.run(["printf", "a\\377\\n"], timeout=10).out] == ["a\ufffd\n"] * 2


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    """Where a file cannot be put, the machine's words are told and all is as it was."""
    (tmp_path / "folder" / "f").mkdir(parents=True)
    for path, why in (
        (tmp_path / "folder" / "f", "Is a directory"),
        (tmp_path / "no" / "f", "No such file or directory"),
    ):
        with pytest.raises(WriteFailed) as raised:
            LocalHost().write(str(path), "new")
        assert (raised.value.what, raised.value.why) == (f"localhost: {path} could not be written", why)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["f", "folder"]


# LocalHost.stream: output that is handed over while the command runs.


def test_streamed_lines_arrive_one_by_one(tmp_path: Path) -> None:
    """The command goes on only after its first line was handed over, and the last line needs no line end."""
    go = tmp_path / "go"
    script = 'echo one; until [ -e "$0" ]; do sleep 0.01; done; printf two'
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        go.touch()

    result = LocalHost().stream(["sh", "-c", script, str(go)], timeout=10, on_line=on_line)
    assert (lines, result.out) == (["one", "two"], "one\ntwo")


def test_errors_are_apart_from_streamed_lines() -> None:
    """They come with the result, however much they are; a code other than 0 is no failure."""
    argv = ("sh", "-c", f"head -c {BIG} /dev/zero | tr '\\0' x >&2; echo out; exit 3")
    lines: list[str] = []
    result = LocalHost().stream(argv, timeout=10, on_line=lines.append)
    assert (lines, result.out, result.code) == (["out"], "out", 3)
    assert result.err == "x" * BIG


def test_at_its_deadline_a_streamed_command_ends_with_its_group(pid_file: Path) -> None:
    """A command that does not end in time is TimedOut, and a grandchild that holds the output open is gone as well."""
    argv = nest(pid_file)
    with pytest.raises(TimedOut) as raised:
        LocalHost().stream(argv, timeout=0.3, on_line=print)
    assert raised.value.what == f"localhost: {' '.join(argv)} did not end within 0.3 s"
    assert ended(int(pid_file.read_text()))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_on_line_ends_the_command(error: type[BaseException]) -> None:
    """It comes through to the caller, also where it is the user's Ctrl-C."""
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise error

    with pytest.raises(error):
        LocalHost().stream(["sh", "-c", "echo $$; sleep 60"], timeout=10, on_line=on_line)
    assert not psutil.pid_exists(pids[0])


def test_more_arguments_than_the_kernel_takes_are_code_126() -> None:
    """A command line that is too long is no crash: code 126, with the kernel's words."""
    result = LocalHost().run(["true", "x" * (1 << 20)], timeout=10, ok=(126,))
    assert "Argument list too long" in result.err
