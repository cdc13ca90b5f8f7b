"""Which process an id means, and which folders one uses."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shoal.facts.process import Stat, describe, names_folder, parse_stat, read_boot_id, read_stat, users
from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost

REST = "R 10262 10262 8864 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 1 0 530434 3133440 415 18446744073709551615 0"


@pytest.mark.parametrize("name", ["cat", "tmux: server", "a) R 1 (b", "(sd-pam)", ") )", ""])
def test_a_name_of_any_form(name: str) -> None:
    """State and start are read behind the program's name, whatever blanks and parentheses that holds."""
    assert parse_stat(f"10266 ({name}) {REST}\n") == Stat("R", 530434)


@pytest.mark.parametrize("text", ["", "x", "1 (cat) R 1 2", f"1 (cat) {REST.replace('530434', 'x')}"])
def test_a_stat_of_another_form(text: str) -> None:
    """A text of another form is no process."""
    assert parse_stat(text) is None


def test_a_process_that_ended() -> None:
    """A zombie and a dead process have ended; one that runs, sleeps or is stopped has not."""
    assert [Stat(letter, 1).ended for letter in "ZXRSDTtI"] == [True, True, *[False] * 6]


def test_this_process() -> None:
    """This process runs, began after the boot, and its parent began no later."""
    mine, parent = read_stat(LocalHost(), os.getpid()), read_stat(LocalHost(), os.getppid())
    assert mine is not None
    assert parent is not None
    assert not mine.ended
    assert parent.ticks <= mine.ticks


def test_no_process() -> None:
    """There is no process of an id that none has."""
    assert read_stat(FakeHost(), 1) is None


def test_the_boot_has_a_name() -> None:
    """The boot's name is read without its line end, and is empty where the kernel has none."""
    host = FakeHost({"/proc/sys/kernel/random/boot_id": "4b371282-b911\n"})
    assert (read_boot_id(host), read_boot_id(FakeHost())) == ("4b371282-b911", "")


@pytest.mark.parametrize(
    "word",
    [
        "/tmp/ray",
        "/tmp/ray/",
        "--temp-dir=/tmp/ray",
        "--session-dir=/tmp/ray/session_2026-11-23",
        "python worker.py --temp-dir=/tmp/ray --node-ip=1",
        '{"temp_dir":"/tmp/ray"}',
    ],
)
def test_a_command_line_that_names_the_folder(word: str) -> None:
    """A folder is named by its path or a path in it, alone, as an option's value, or within a longer argument."""
    assert names_folder(["raylet", word], Path("/tmp/ray"))


@pytest.mark.parametrize("word", ["/tmp/ray2", "/tmp/ray-old/x", "/tmp/ray.old", "/mnt/tmp/ray", "/tmp", "ray", ""])
def test_a_command_line_that_names_another_folder(word: str) -> None:
    """A path that only begins or ends alike names another folder."""
    assert not names_folder(["raylet", word], Path("/tmp/ray"))


@contextmanager
def running(*words: str, cwd: str = "/", out: Path | None = None) -> Iterator[int]:
    """A process that sleeps, with these words in its command line; its id."""
    argv: Sequence[str] = (sys.executable, "-c", "import time; time.sleep(60)", *words)
    with (out or Path(os.devnull)).open("wb") as stdout, subprocess.Popen(argv, cwd=cwd, stdout=stdout) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def pids(folder: Path) -> set[int]:
    return {process.pid for process in users(folder)}


def test_who_uses_a_folder(tmp_path: Path) -> None:
    """A process uses a folder that it names, lives in or prints into; one that does so elsewhere does not."""
    folder, other = tmp_path / "ray", tmp_path / "ray2"
    (folder / "session_x").mkdir(parents=True)
    other.mkdir()
    with (
        running(f"--temp-dir={folder}") as named,
        running(cwd=str(folder / "session_x")) as living,
        running(out=folder / "session_x" / "log") as printing,
        running(f"--temp-dir={other}", cwd=str(other), out=other / "log"),
    ):
        assert pids(folder) == {named, living, printing}


def test_a_folder_by_two_names(tmp_path: Path) -> None:
    """A process that names a link to the folder, or lives where the link leads, uses it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    link = tmp_path / "link"
    with running(f"--temp-dir={link}") as named, running(cwd=str(link)) as living:
        assert pids(link) == {named, living}


def test_we_use_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is not among the users of the folder that it lives in."""
    monkeypatch.chdir(tmp_path)
    assert pids(tmp_path) == set()


def test_a_process_in_words() -> None:
    """A process is told by its program and its id, also where it has just ended."""
    with running() as pid:
        process = psutil.Process(pid)
        assert describe(process) == f"{process.name()} (pid {pid})"
    assert describe(process) == f"a process that just ended (pid {pid})"
