"""The count of a raylet's starts."""

from pathlib import Path

from shoal.agent.turns import Turns
from shoal.errors import WriteFailed
from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost


def test_the_count_goes_on_after_the_agent_has_ended(tmp_path: Path) -> None:
    """A second agent, after a reboot, takes the number after the first one's last."""
    path = tmp_path / "state" / "turn"
    first, second = Turns(LocalHost(), path), Turns(LocalHost(), path)
    assert [first.take(), first.take(), second.take()] == [0, 1, 2]


def test_a_damaged_file_begins_anew(tmp_path: Path) -> None:
    """What is no number counts as none."""
    path = tmp_path / "turn"
    path.write_text("nine\n")
    assert [Turns(LocalHost(), path).take(), path.read_text()] == [0, "1\n"]


def test_a_full_disk_costs_the_memory_alone(tmp_path: Path) -> None:
    """The count goes on in memory."""

    class Full(FakeHost):
        def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
            raise WriteFailed(path)

    turns = Turns(Full(), tmp_path / "turn")
    assert [turns.take(), turns.take()] == [0, 1]
