"""``shoal exec`` as a user calls it, over a real sshd: streams and exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.conftest import SshLab
from tests.sshd import SBIN

HOSTS = "cluster: lab\nhosts:\n  - {name: gpu-1, ssh: plain}\n  - {name: gone, ssh: 'ssh://127.0.0.1:1'}\n"


@pytest.fixture
def environment(ssh_lab: SshLab, tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh is the real one with the tests' config, and a shoal.yaml in its folder."""
    (tmp_path / "shoal.yaml").write_text(HOSTS)
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh", path=SBIN)} -F {ssh_lab.config} "$@"\n')
    ssh.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def shoal(environment: dict[str, str], *words: str, told: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """`shoal exec WORDS` in a process of its own, in the folder with the file."""
    argv = [sys.executable, "-m", "shoal", "exec", *words]
    folder = environment["PATH"].partition(":")[0]
    return subprocess.run(argv, input=told, capture_output=True, env=environment, cwd=folder, check=False, timeout=60)


def test_streams_and_code(environment: dict[str, str]) -> None:
    """Bytes go in and come out as they are, errors apart, and the code is the command's."""
    data = bytes(range(256)) * 400
    done = shoal(environment, "gpu-1", "--", "sh", "-c", "cat; echo it''s wrong >&2; exit 7", told=data)
    assert (done.returncode, done.stdout, done.stderr) == (7, data, b"its wrong\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [(("true",), 0), (("nosuch",), 127), (("sh", "-c", "kill -9 $$"), 137), (("sh", "-c", "exit 255"), 255)],
)
def test_exit_codes(environment: dict[str, str], command: tuple[str, ...], code: int) -> None:
    """Each exit code is passed on; a signal is 128 and its number, as a shell says it."""
    assert shoal(environment, "gpu-1", "--", *command).returncode == code


def test_words_stay_words(environment: dict[str, str]) -> None:
    """Blanks, quotes and globs of an argument reach the command as they were."""
    words = ("a b", "it's", "*", '$HOME "x"', "")
    assert shoal(environment, "gpu-1", "printf", r"%s\n", *words).stdout.decode().splitlines() == list(words)


def test_a_host_that_is_not_reached(environment: dict[str, str]) -> None:
    """Where no connection is made, the code is 3, with cause and fix, and nothing is run."""
    done = shoal(environment, "gone", "--", "true")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"error: gone cannot be reached\nwhy: nothing listens on its ssh port\nfix: " in done.stderr
