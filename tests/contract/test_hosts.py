"""One suite for every Host: what may be relied on, wherever the machine is."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.conftest import Machine

from shoal.errors import CommandFailed, HostError, TimedOut, WriteFailed
from shoal.host.base import Host, Result
from shoal.host.fake import FakeHost
from shoal.host.tied import MARK, TIED, tied

MIB = 1 << 20
NASTY = (
    "$HOME",
    "; id",
    "a  b",
    "'q\"",
    "*",
    "\\",
    "\\\\'",
    "`id`",
    "$(id)",
    "!x",
    "#",
    "~",
    "",
    "\n\t",
    "zwölf ✓",
    "-n",
)


def told(machine: Machine, argv: Sequence[str], code: int = 0, out: str | bytes = "", err: str = "") -> tuple[str, ...]:
    """The command, about which a made-up machine now knows."""
    if isinstance(machine.host, FakeHost):
        data = out.encode() if isinstance(out, str) else out
        machine.host.replies[" ".join(argv)] = Result.of(tuple(argv), code, data, err.encode())
    return tuple(argv)


# Commands.


def test_arguments_are_no_shell_text(machine: Machine) -> None:
    """Arguments arrive as they are, whatever character would mean something to a shell."""
    out = "|".join(NASTY) + "|"
    argv = told(machine, ["printf", "%s|", *NASTY], out=out)
    assert machine.host.run(argv, timeout=20) == Result(argv, 0, out, "")


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=20))
def test_any_text_is_an_argument(real: Machine, words: list[str]) -> None:
    """No text at all, but for a NUL, is changed on its way."""
    result = real.host.run(["printf", "%s\\0", "", *words], timeout=20)
    assert result.data.decode().split("\0") == ["", *words, ""]


def test_output_and_errors_are_apart(machine: Machine) -> None:
    """What a command prints and what it complains are not mixed."""
    argv = told(machine, ["sh", "-c", "echo out; echo err >&2"], out="out\n", err="err\n")
    assert machine.host.run(argv, timeout=20) == Result(argv, 0, "out\n", "err\n")


@pytest.mark.parametrize("code", [1, 3, 124, 125, 254, 255])
def test_a_code_that_is_expected_is_a_result(machine: Machine, code: int) -> None:
    """A code named in ``ok`` is an answer and no failure; no code is taken for a failure of the way there."""
    argv = told(machine, ["sh", "-c", f"exit {code}"], code=code)
    assert machine.host.run(argv, timeout=20, ok=(0, code)) == Result(argv, code, "", "")


def test_a_code_that_is_not_expected_is_told_with_the_last_words(machine: Machine) -> None:
    """Any other code is CommandFailed, with the command, its code and the last three lines of its complaint."""
    argv = told(machine, ["sh", "-c", "printf '1\\n2\\n3\\n4\\n' >&2; exit 255"], code=255, err="1\n2\n3\n4\n")
    with pytest.raises(CommandFailed) as raised:
        machine.host.run(argv, timeout=20)
    assert raised.value.what == f"{machine.host.name}: {' '.join(argv)} ended with code 255"
    assert raised.value.why == "2 | 3 | 4"


def test_where_there_is_no_complaint_the_output_is_told(machine: Machine) -> None:
    """A command that failed without a complaint is told by its output, and one without a word as such."""
    loud, silent = told(machine, ["sh", "-c", "echo no; exit 1"], code=1, out="no\n"), told(machine, ["false"], code=1)
    whys = []
    for argv in (loud, silent):
        with pytest.raises(CommandFailed) as raised:
            machine.host.run(argv, timeout=20)
        whys.append(raised.value.why)
    assert whys == ["no", "it printed nothing"]


@pytest.mark.parametrize("program", ["shoal-no-such-program", "/no/such/program"])
def test_a_program_that_is_missing_is_code_127(machine: Machine, program: str) -> None:
    """A program that does not exist is code 127, as in a shell, and is named."""
    result = machine.host.run([program, "x"], timeout=20, ok=(127,))
    assert (result.code, result.out, program in result.err) == (127, "", True)
    with pytest.raises(CommandFailed):
        machine.host.run([program, "x"], timeout=20)


def test_a_file_that_may_not_be_run_is_code_126(real: Machine) -> None:
    """A file without permission to run is code 126, as in a shell."""
    real.host.write(f"{real.folder}/f", "x", mode=0o644)
    assert real.host.run([f"{real.folder}/f"], timeout=20, ok=(126,)).code == 126


def test_a_signal_is_a_code_above_128(real: Machine) -> None:
    """A command that a signal ended has 128 and the signal's number as its code, as in a shell."""
    codes = [real.host.run(["sh", "-c", f"kill -{n} $$"], timeout=20, ok=range(256)).code for n in (9, 15)]
    assert codes == [137, 143]


def test_big_output_arrives_whole(machine: Machine) -> None:
    """Ten megabytes arrive on each stream at once."""
    script = "head -c 10485760 /dev/zero | tr '\\0' e >&2 & head -c 10485760 /dev/zero | tr '\\0' o; wait"
    argv = told(machine, ["sh", "-c", script], out="o" * 10 * MIB, err="e" * 10 * MIB)
    result = machine.host.run(argv, timeout=60)
    assert (result.out == "o" * 10 * MIB, result.err == "e" * 10 * MIB) == (True, True)


def test_output_is_there_as_bytes(machine: Machine) -> None:
    """Output that is no text is lost in ``out``, and whole in ``data``."""
    argv = told(machine, ["printf", "a\\377\\000\\n"], out=b"a\xff\0\n")
    result = machine.host.run(argv, timeout=20)
    assert (result.out, result.data) == ("a\ufffd\0\n", b"a\xff\0\n")


def test_a_command_is_given_nothing_to_read(machine: Machine) -> None:
    """A command that reads its input finds its end at once."""
    argv = told(machine, ["cat"])
    assert machine.host.run(argv, timeout=20) == Result(argv, 0, "", "")


def test_a_command_reads_its_input(machine: Machine) -> None:
    """A command reads what it is given, text or bytes, also where that is more than a pipe holds."""
    argv = told(machine, ["wc", "-c"], out=f"{MIB}\n")
    counts = [machine.host.run(argv, timeout=20, input=given).out for given in ("x" * MIB, b"\xff" * MIB)]
    assert counts == [f"{MIB}\n"] * 2


def test_input_that_nobody_reads_is_no_failure(machine: Machine) -> None:
    """A command may end without having read its input."""
    argv = told(machine, ["true"])
    assert machine.host.run(argv, timeout=20, input=b"x" * MIB) == Result(argv, 0, "", "")


def gone(host: Host, pid: str) -> bool:
    """Whether a process ends within a few seconds; who reaps it is not our affair."""
    end = time.monotonic() + 10
    while (stat := host.read(f"/proc/{pid}/stat")) and ") Z " not in stat:
        if time.monotonic() > end:
            return False
    return True


def test_at_its_deadline_a_command_ends_with_all_that_it_started(real: Machine) -> None:
    """A command that does not end in time is TimedOut, and its grandchildren, over there, are gone as well."""
    argv = ("sh", "-c", f"sleep 600 & echo $! > {real.folder}/pid; wait")
    with pytest.raises(TimedOut) as raised:
        real.host.run(argv, timeout=1.5)
    assert raised.value.what == f"{real.host.name}: {' '.join(argv)} did not end within 1.5 s"
    assert gone(real.host, (real.host.read(f"{real.folder}/pid") or "none").strip())


# Files.


def test_what_was_written_is_read(machine: Machine) -> None:
    """A file reads as it was last written, with text in any script."""
    path = f"{machine.folder}/f"
    machine.host.write(path, "one\n")
    machine.host.write(path, "zwölf ✓\n\n")
    assert machine.host.read(path) == "zwölf ✓\n\n"


def test_bytes_are_written_and_read(machine: Machine) -> None:
    """A file of any bytes reads as it was written; its text has replacement marks."""
    path, content = f"{machine.folder}/f", bytes(range(256)) * 4096
    machine.host.write(path, content)
    assert machine.host.read_bytes(path) == content
    assert machine.host.read(path) == content.decode(errors="replace")


def test_a_file_may_be_empty_and_have_any_name(machine: Machine) -> None:
    """An empty file is a file, and a name may hold what would mean something to a shell."""
    for name in ("-n", "a b", "$x'\"\\", "*", "ü"):
        machine.host.write(f"{machine.folder}/{name}", "")
        assert machine.host.read(f"{machine.folder}/{name}") == ""
    assert machine.host.list(machine.folder) == tuple(sorted(("-n", "a b", "$x'\"\\", "*", "ü")))


def test_what_is_not_there_reads_as_nothing(machine: Machine) -> None:
    """A file that does not exist, a folder, and a path through a file read as None."""
    machine.host.write(f"{machine.folder}/f", "x")
    paths = [f"{machine.folder}/none", machine.folder, f"{machine.folder}/f/g"]
    assert [machine.host.read(path) for path in paths] == [None, None, None]
    assert [machine.host.read_bytes(path) for path in paths] == [None, None, None]


def test_a_file_whose_reading_fails_reads_as_nothing(real: Machine) -> None:
    """A file of the kernel's that answers with an error reads as None."""
    assert real.host.read("/proc/self/mem") is None


def test_a_folder_lists_its_names_sorted(machine: Machine) -> None:
    """A folder lists names without their path, sorted, hidden ones too."""
    for name in ("mlx5_1", "mlx5_0", "Z", "a", ".b", "..c", "two\nlines"):
        machine.host.write(f"{machine.folder}/{name}", "")
    assert machine.host.list(machine.folder) == ("..c", ".b", "Z", "a", "mlx5_0", "mlx5_1", "two\nlines")


def test_a_link_that_leads_nowhere_is_listed(real: Machine) -> None:
    """A folder lists links, folders and files alike, and a link to a folder lists what is in it."""
    real.host.run(["ln", "-s", "/none", f"{real.folder}/link"], timeout=20)
    real.host.run(["mkdir", f"{real.folder}/folder"], timeout=20)
    real.host.run(["ln", "-s", real.folder, f"{real.folder}/self"], timeout=20)
    assert real.host.list(f"{real.folder}/self") == ("folder", "link", "self")


def test_what_is_no_folder_lists_nothing(machine: Machine) -> None:
    """A folder that does not exist, an empty one and a file list nothing."""
    machine.host.write(f"{machine.folder}/f", "x")
    assert machine.host.list(f"{machine.folder}/none") == machine.host.list(f"{machine.folder}/f") == ()


def stat(machine: Machine, path: str) -> str:
    return machine.host.run(["stat", "-c", "%a", path], timeout=20).out.strip()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_a_file_has_its_mode(real: Machine, mode: int) -> None:
    """A written file has the mode asked for, whatever the one it replaces had."""
    path = f"{real.folder}/f"
    real.host.run(["sh", "-c", 'echo old > "$0"; chmod 666 "$0"', path], timeout=20)
    real.host.write(path, "new", mode=mode)
    assert (stat(real, path), real.host.read(path)) == (f"{mode:o}", "new")


def test_a_write_replaces_the_file_in_one_step(real: Machine) -> None:
    """Whoever has the old file open reads the old content to its end, and no part file is left."""
    path = f"{real.folder}/f"
    real.host.write(path, "old")
    real.host.run(["ln", path, f"{real.folder}/opened"], timeout=20)
    real.host.write(path, "new")
    assert (real.host.read(path), real.host.read(f"{real.folder}/opened")) == ("new", "old")
    assert real.host.list(real.folder) == ("f", "opened")


def test_a_write_that_fails_leaves_the_old_file_and_no_part(real: Machine) -> None:
    """Where a file cannot be put, the machine's words are told and all is as it was."""
    real.host.run(["mkdir", f"{real.folder}/f"], timeout=20)
    for path, why in ((f"{real.folder}/f", "Is a directory"), (f"{real.folder}/no/f", "No such file or directory")):
        with pytest.raises(WriteFailed) as raised:
            real.host.write(path, "new")
        assert raised.value.what == f"{real.host.name}: {path} could not be written"
        assert why in raised.value.why
    assert (real.host.list(real.folder), real.host.list(f"{real.folder}/f")) == (("f",), ())


def test_a_machine_has_a_name(machine: Machine) -> None:
    """Each machine has a name for messages."""
    assert machine.host.name in {"localhost", "plain", "dash", "inside", "box", "fake"}


# Programs that are spoken with.


def test_a_program_is_spoken_with_while_it_runs(real: Machine) -> None:
    """What is sent comes in at once, and each line is heard as it is said; its end is the end of its input."""
    talk = real.host.start(["cat"])
    try:
        heard = []
        for word in ("one", "two"):
            talk.send(f"{word}\n".encode())
            line = talk.line()
            while line not in ("one", "two"):  # a login may say what it likes before
                line = talk.line()
            heard.append(line)
    finally:
        talk.close()
    assert heard == ["one", "two"]


def test_a_talk_that_never_began_says_why(real: Machine) -> None:
    """There is no line, and the reason is an error of the host's."""
    talk = real.host.start(["no-such-program"])
    try:
        while talk.line() is not None:
            pass
        assert isinstance(talk.blame(), HostError)
    finally:
        talk.close()


def test_a_tied_command_has_its_output_and_its_code(real: Machine) -> None:
    """Any exit code is the caller's to judge."""
    result = tied(real.host, ["sh", "-c", "echo one; echo two >&2; exit 3"], timeout=30)
    assert (result.code, result.out, "two" in result.err) == (3, "one", True)


def test_a_tied_command_ends_with_us(real: Machine) -> None:
    """When this side goes, the command over there is ended too."""
    talk = real.host.start(("sh", "-c", TIED, MARK, "300", "sh", "-c", "echo pid $$; exec sleep 299"))
    line = talk.line()
    while line is not None and not line.startswith("pid "):
        line = talk.line()
    talk.close()
    alive = ["sh", "-c", 'kill -0 "$0" 2>/dev/null && echo alive', (line or "").removeprefix("pid ")]
    end = time.monotonic() + 60
    while real.host.run(alive, timeout=20, ok=range(256)).out:
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.1)
