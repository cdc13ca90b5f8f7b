"""``shoal exec``: which host, which command line, and what is refused."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost
from shoal.host.ssh import SshHost
from shoal.ops import attach
from shoal.ui.cli import main

CLUSTER = "cluster: pair\nhosts:\n  - {name: spark-1, ssh: me@one}\n  - name: spark-2\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shoal.yaml"
    path.write_text(CLUSTER)
    return path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What would have been run on which host."""
    seen: list[tuple[str, ...]] = []

    def note(host: SshHost, argv: tuple[str, ...], *, terminal: bool) -> int:
        seen.append((host.by_hand(), *argv, str(terminal)))
        return 7

    monkeypatch.setattr("shoal.ui.verbs.exec.attach", note)
    return seen


@pytest.mark.parametrize("between", [("--",), ()])
def test_the_command_is_passed_on(file: Path, ran: list[tuple[str, ...]], between: tuple[str, ...]) -> None:
    """What stands after NODE is the command, options and all; its exit code is shoal's."""
    done = CliRunner().invoke(main, ["exec", "-f", str(file), "spark-1", *between, "ls", "-f", "--", "x"])
    assert (done.exit_code, done.output) == (7, "")
    assert ran == [("ssh -v me@one true", "ls", "-f", "--", "x", "False")]


def test_a_container(file: Path, ran: list[tuple[str, ...]]) -> None:
    """With -c the command runs in that container of the host, with a terminal where it is to have one."""
    words = ["exec", "-f", str(file), "-c", "vllm", "--terminal", "spark-2", "bash"]
    assert CliRunner().invoke(main, words).exit_code == 7
    assert ran == [("ssh -v spark-2 true", "docker", "exec", "-it", "vllm", "bash", "True")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("spark3", "--", "ls"), 'has no host "spark3"'),
        (("spark-1",), "error: no command is named\nfix: shoal exec spark-1 -- COMMAND...\n"),
        (("spark-1", "--"), "error: no command is named\nfix: shoal exec spark-1 -- COMMAND...\n"),
    ],
)
def test_wrong_calls(file: Path, ran: list[tuple[str, ...]], words: tuple[str, ...], said: str) -> None:
    """A host that is not in the file, and a missing command, are refused; nothing is run."""
    done = CliRunner().invoke(main, ["exec", "-f", str(file), *words])
    assert (done.exit_code, ran) == (2, [])
    assert said in done.stderr


def test_the_terminal_is_asked_of_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is reached first, so that the cause is told; then ssh runs it, with a terminal or without."""
    near, seen = FakeHost(), list[tuple[str, ...]]()
    host = SshHost("gpu-1", inner=near, sockets="/s")
    monkeypatch.setattr(host, "run", lambda argv, **how: seen.append(tuple(argv)))
    monkeypatch.setattr(LocalHost, "attach", lambda self, argv: seen.append((argv[1], argv[-1])) or 3)
    assert [attach.attach(host, ("id",), terminal=terminal) for terminal in (True, False)] == [3, 3]
    line = "'sh' '-c' '\"$@\"; exit $?' 'sh' 'id'"
    assert seen == [("true",), ("-tax", line), ("true",), ("-Tax", line)]
