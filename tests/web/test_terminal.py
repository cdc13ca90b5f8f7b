"""``shoal top`` in a real terminal, in front of a cluster with real Ray: a node is lost and comes back."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.web.visit import SHOTS, aside

from shoal.lab import cluster
from shoal.lab.cluster import Lab

WIDTH, HEIGHT = 120, 36


class Terminal:
    """A terminal of tmux's, on a server of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *words: str) -> str:
        """What tmux prints; it is told nothing by the user's own configuration."""
        argv = ("tmux", "-S", str(self._socket), "-f", "/dev/null", *words)
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout

    def screen(self) -> str:
        """What stands on the screen."""
        return self.tmux("capture-pane", "-p", "-t", "top")

    def until(self, seen: Callable[[str], bool], seconds: float) -> str:
        """The screen once it is so; as it is at the end of the wait where it does not come to that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not seen(self.screen()):
            time.sleep(0.3)
        return self.screen()

    def keep(self, name: str) -> None:
        """Keep the screen as a text, for who wants to look."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        (SHOTS / f"top-{name}.txt").write_text(self.screen(), encoding="utf-8")


@pytest.fixture
def terminal(lab: Lab, tmp_path: Path) -> Iterator[Terminal]:
    """``shoal top`` on that cluster, which is ready."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux")
    aside(cluster.wait_ready, lab, 150)
    run = lab.record.run
    shown = Terminal(tmp_path / "tmux")
    own = "env -u COLUMNS -u LINES"  # the size is the terminal's, whatever the environment of the tests says
    command = f"{own} {sys.executable} -m shoal top --agent {run.nodes[0].agent_url} --key-file {run.api_key_file}"
    shown.tmux("new-session", "-d", "-s", "top", "-x", str(WIDTH), "-y", str(HEIGHT), command)
    yield shown
    if sessions(shown):
        shown.tmux("kill-server")


def test_top_shows_a_node_that_is_lost_and_comes_back(terminal: Terminal, lab: Lab) -> None:
    """The sentence names the node while it is away, and that all is well before and afterwards; q ends it."""
    assert "All is well" in terminal.until(lambda screen: "All is well" in screen, 60)
    terminal.keep("well")
    off = aside(cluster.power_off, lab, lab.host("n2"))
    try:
        # Long enough to be seen: a raylet that was only killed is back within seconds.
        assert "n2 is lost" in terminal.until(lambda screen: "n2 is lost" in screen, 40)
        terminal.keep("lost")
    finally:
        aside(cluster.boot, off, off.host("n2"))
    terminal.tmux("send-keys", "-t", "top", "e")
    assert "All is well" in terminal.until(lambda screen: "All is well" in screen, 120)
    assert "tokens are produced" in terminal.until(lambda screen: "tokens are produced" in screen, 10)
    terminal.keep("events")
    terminal.tmux("send-keys", "-t", "top", "q")
    end = time.monotonic() + 20
    while time.monotonic() < end and "top" in sessions(terminal):
        time.sleep(0.2)
    assert sessions(terminal) == ""


def sessions(terminal: Terminal) -> str:
    """The sessions that are there; none where tmux itself has ended, as it does with its last one."""
    try:
        return terminal.tmux("list-sessions", "-F", "#{session_name}").strip()
    except subprocess.CalledProcessError:
        return ""
