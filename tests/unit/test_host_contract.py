"""One suite for every Host: what may be relied on, wherever the machine is."""

import contextlib
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shoal.errors import CommandFailed, HostUnreachable, TimedOut, WriteFailed
from shoal.host.base import Host, Result
from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost

PYTHON = sys.executable
BIG = 1 << 20


@dataclass(frozen=True)
class Machine:
    """A host with a folder of its own; a made-up one must be told what its commands would say."""

    host: Host
    folder: str

    def told(self, argv: Sequence[str], code: int = 0, out: str = "", err: str = "") -> tuple[str, ...]:
        if isinstance(self.host, FakeHost):
            self.host.replies[" ".join(argv)] = Result(tuple(argv), code, out, err)
        return tuple(argv)


@pytest.fixture(params=["local", "fake"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(LocalHost() if request.param == "local" else FakeHost(), str(tmp_path))


def test_arguments_are_no_shell_text(machine: Machine) -> None:
    """Arguments arrive as they are: no variable, no quote, no semicolon means anything."""
    argv = machine.told(["printf", "%s|", "$HOME", "; id", "a  b", "'q\"", "*"], out="$HOME|; id|a  b|'q\"|*|")
    assert machine.host.run(argv, timeout=10) == Result(argv, 0, "$HOME|; id|a  b|'q\"|*|", "")


def test_output_and_errors_are_apart(machine: Machine) -> None:
    """What a command prints and what it complains are not mixed."""
    argv = machine.told(["sh", "-c", "echo out; echo err >&2"], out="out\n", err="err\n")
    assert machine.host.run(argv, timeout=10) == Result(argv, 0, "out\n", "err\n")


def test_a_code_that_is_expected_is_a_result(machine: Machine) -> None:
    """A code named in ``ok`` is an answer and no failure."""
    argv = machine.told(["sh", "-c", "exit 3"], code=3)
    assert machine.host.run(argv, timeout=10, ok=(0, 3)) == Result(argv, 3, "", "")


def test_a_code_that_is_not_expected_is_told_with_the_last_words(machine: Machine) -> None:
    """Any other code is CommandFailed, with the command, its code and the last three lines of its complaint."""
    argv = machine.told(["sh", "-c", "printf '1\\n2\\n3\\n4\\n' >&2; exit 2"], code=2, err="1\n2\n3\n4\n")
    with pytest.raises(CommandFailed) as raised:
        machine.host.run(argv, timeout=10)
    assert raised.value.what == f"{machine.host.name}: {' '.join(argv)} ended with code 2"
    assert raised.value.why == "2 | 3 | 4"


def test_where_there_is_no_complaint_the_output_is_told(machine: Machine) -> None:
    """A command that failed without a complaint is told by its output, and one without a word as such."""
    loud, silent = machine.told(["sh", "-c", "echo no; exit 1"], code=1, out="no\n"), machine.told(["false"], code=1)
    whys = []
    for argv in (loud, silent):
        with pytest.raises(CommandFailed) as raised:
            machine.host.run(argv, timeout=10)
        whys.append(raised.value.why)
    assert whys == ["no", "it printed nothing"]


@pytest.mark.parametrize("program", ["shoal-no-such-program", "/no/such/program", "/etc/passwd/x"])
def test_a_program_that_is_missing_is_code_127(machine: Machine, program: str) -> None:
    """A program that does not exist is code 127, as in a shell, and a failure like any other code."""
    result = machine.host.run([program, "x"], timeout=10, ok=(127,))
    assert result == Result((program, "x"), 127, "", f"{program}: not found")
    with pytest.raises(CommandFailed):
        machine.host.run([program, "x"], timeout=10)


def test_big_output_arrives_whole(machine: Machine) -> None:
    """Output larger than a pipe's buffer arrives, on both streams at once."""
    code = f"import sys; sys.stdout.write('o' * {BIG}); sys.stderr.write('e' * {BIG})"
    argv = machine.told([PYTHON, "-c", code], out="o" * BIG, err="e" * BIG)
    result = machine.host.run(argv, timeout=30)
    assert (result.out == "o" * BIG, result.err == "e" * BIG) == (True, True)


def test_a_command_is_given_nothing_to_read(machine: Machine) -> None:
    """A command that reads its input finds its end at once."""
    argv = machine.told(["cat"])
    assert machine.host.run(argv, timeout=10) == Result(argv, 0, "", "")


def test_a_command_reads_its_input(machine: Machine) -> None:
    """A command reads what it is given, text or bytes, also where that is more than a pipe holds."""
    argv = machine.told(["wc", "-c"], out=f"{BIG}\n")
    told = [machine.host.run(argv, timeout=10, input=given).out for given in ("x" * BIG, b"\xff" * BIG)]
    assert told == [f"{BIG}\n"] * 2


def test_input_that_nobody_reads_is_no_failure(machine: Machine) -> None:
    """A command may end without having read its input."""
    argv = machine.told(["true"])
    assert machine.host.run(argv, timeout=10, input=b"x" * BIG) == Result(argv, 0, "", "")


def test_output_is_there_as_bytes(machine: Machine) -> None:
    """Output that is no text is lost in ``out``, and whole in ``data``."""
    argv = ("printf", "a\\377\\n")
    if isinstance(machine.host, FakeHost):
        machine.host.replies[" ".join(argv)] = b"a\xff\n"
    result = machine.host.run(argv, timeout=10)
    assert (result.out, result.data) == ("a\ufffd\n", b"a\xff\n")


def test_bytes_are_written_and_read(machine: Machine) -> None:
    """A file of any bytes reads as it was written; its text has replacement marks."""
    path, content = f"{machine.folder}/f", bytes(range(256)) * 5
    machine.host.write(path, content)
    assert machine.host.read_bytes(path) == content
    assert machine.host.read(path) == content.decode(errors="replace")


def test_what_was_written_is_read(machine: Machine) -> None:
    """A file reads as it was last written, with text in any script."""
    path = f"{machine.folder}/f"
    machine.host.write(path, "one\n")
    machine.host.write(path, "zwölf ✓\n\n")
    assert machine.host.read(path) == "zwölf ✓\n\n"


def test_what_is_not_there_reads_as_nothing(machine: Machine) -> None:
    """A file that does not exist, a folder, and a path through a file read as None."""
    machine.host.write(f"{machine.folder}/f", "x")
    paths = [f"{machine.folder}/none", machine.folder, f"{machine.folder}/f/g"]
    assert [machine.host.read(path) for path in paths] == [None, None, None]
    assert [machine.host.read_bytes(path) for path in paths] == [None, None, None]


def test_a_folder_lists_its_names_sorted(machine: Machine) -> None:
    """A folder lists names without their path, sorted."""
    for name in ("mlx5_1", "mlx5_0", "Z", "a"):
        machine.host.write(f"{machine.folder}/{name}", "")
    assert machine.host.list(machine.folder) == ("Z", "a", "mlx5_0", "mlx5_1")


def test_what_is_no_folder_lists_nothing(machine: Machine) -> None:
    """A folder that does not exist and a file list nothing."""
    machine.host.write(f"{machine.folder}/f", "x")
    assert machine.host.list(f"{machine.folder}/none") == machine.host.list(f"{machine.folder}/f") == ()


def test_a_machine_has_a_name(machine: Machine) -> None:
    """Each machine has a name for messages."""
    assert machine.host.name in {"localhost", "fake"}


# What only a real machine can show.


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


def test_at_its_deadline_a_command_ends_with_all_that_it_started(pid_file: Path) -> None:
    """A command that does not end in time is TimedOut, and its grandchildren are gone as well."""
    argv = nest(pid_file)
    with pytest.raises(TimedOut) as raised:
        LocalHost().run(argv, timeout=0.3)
    assert raised.value.what == f"localhost: {' '.join(argv)} did not end within 0.3 s"
    assert ended(int(pid_file.read_text()))


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


def test_a_file_that_may_not_be_run_is_code_126(tmp_path: Path) -> None:
    """A file without permission to run is code 126, as in a shell."""
    (tmp_path / "f").write_text("x")
    assert LocalHost().run([str(tmp_path / "f")], timeout=10, ok=(126,)).code == 126


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """Undecodable bytes in files and output become replacement marks."""
    (tmp_path / "f").write_bytes(b"a\xff\n")
    host = LocalHost()
    assert [host.read(str(tmp_path / "f")), host.run(["printf", "a\\377\\n"], timeout=10).out] == ["a\ufffd\n"] * 2


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_a_file_has_its_mode(tmp_path: Path, mode: int) -> None:
    """A written file has the mode asked for, whatever the one it replaces had."""
    file = tmp_path / "f"
    file.write_text("old")
    file.chmod(0o666)
    LocalHost().write(str(file), "new", mode=mode)
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (mode, "new")


def test_a_write_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    """Whoever has the old file open reads the old content to its end, and no part file is left."""
    file = tmp_path / "f"
    LocalHost().write(str(file), "old")
    with file.open() as reader:
        LocalHost().write(str(file), "new")
        assert reader.read() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


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


# What only a made-up machine can show.


def test_a_fake_host_that_is_unreachable_says_so_on_every_call() -> None:
    """A made-up machine that does not answer raises HostUnreachable, whatever it is asked."""
    host = FakeHost({"/f": "x"}, reachable=False, name="gpu-2")
    calls = (
        lambda: host.run(["true"], timeout=1),
        lambda: host.read("/f"),
        lambda: host.read_bytes("/f"),
        lambda: host.list("/"),
        lambda: host.write("/f", "y"),
    )
    told = []
    for call in calls:
        with pytest.raises(HostUnreachable) as raised:
            call()
        told.append(raised.value.what)
    assert (told, host.calls, host.tree) == (["gpu-2 does not answer"] * 5, [], {"/f": "x"})


def test_a_fake_host_answers_from_its_dicts_and_remembers_the_calls() -> None:
    """A made-up machine replies as told, by text or whole result, and knows what it was asked."""
    host = FakeHost({"/a/b/c": "1", "/a/d": "2"}, {"id -u": "0\n", "false": Result(("false",), 1, "", "no")})
    assert host.run(["id", "-u"], timeout=1) == Result(("id", "-u"), 0, "0\n", "")
    assert host.run(["false"], timeout=1, ok=(1,)) == Result(("false",), 1, "", "no")
    host.run(["tee"], timeout=1, ok=(127,), input="secret")
    host.write("/a/e", b"\xff", mode=0o600)
    assert (host.calls, host.inputs) == ([("id", "-u"), ("false",), ("tee",)], [b"", b"", b"secret"])
    assert (host.modes, host.read_bytes("/a/e")) == ({"/a/e": 0o600}, b"\xff")
    assert (host.list("/a"), host.list("/"), host.list("/a/d")) == (("b", "d", "e"), ("a",), ())
