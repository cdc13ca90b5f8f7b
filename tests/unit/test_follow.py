"""The agent's look into the logs of Ray and NCCL."""

import io
import shutil
from pathlib import Path

import pytest

from shoal.agent import follow
from shoal.agent.follow import Follower
from shoal.log import Event, EventLog

OOM = (
    "(raylet) 1 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons\n"
)
MEMLOCK = "box2:4711:4712 [0] NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory\n"
NOTHING = "[2026-11-24 23:24:16,320 I 57 57] (raylet) main.cc:191: Setting cluster ID\n"


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def follower(tmp_path: Path, told: list[Event]) -> Follower:
    log = EventLog(io.StringIO(), clock=lambda: 0.0)
    log.listeners.append(told.append)
    return Follower(tmp_path, log)


def session(folder: Path, name: str) -> Path:
    """The logs of a session, which becomes the newest."""
    logs = folder / name / "logs"
    logs.mkdir(parents=True)
    latest = folder / "session_latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
    return logs


def test_a_known_trouble_is_told_once(tmp_path: Path, follower: Follower, told: list[Event]) -> None:
    """The first line that names a trouble is told with what it means; the same again, and lines in between, are not."""
    log = session(tmp_path, "session_1") / "raylet.err"
    log.write_text(NOTHING + OOM)
    follower.look()
    with log.open("a") as file:
        file.write(NOTHING + OOM)
    follower.look()
    assert [(event.name, "memory" in event.message, "(raylet.err: " in event.message) for event in told] == [
        ("ray", True, True)
    ]


def test_a_line_that_is_not_ended_is_read_when_it_is(tmp_path: Path, follower: Follower, told: list[Event]) -> None:
    """Half a line says nothing; the whole one does."""
    log = session(tmp_path, "session_1") / "raylet.err"
    log.write_text(OOM[:40])
    follower.look()
    assert told == []
    log.write_text(OOM)
    follower.look()
    assert len(told) == 1


def test_what_a_rank_prints_is_followed_too(tmp_path: Path, follower: Follower, told: list[Event]) -> None:
    """NCCL speaks on the output of a rank, which Ray keeps in a worker's file."""
    log = session(tmp_path, "session_1") / "worker-ab-01000000-57.out"
    log.write_text(MEMLOCK)
    follower.look()
    assert told == [
        Event(
            "nccl",
            "memory cannot be pinned for the NIC: the limit of locked memory is too low; "
            "fix: docker run --ulimit memlock=-1 --cap-add IPC_LOCK, or LimitMEMLOCK=infinity in the systemd unit "
            f"(worker-ab-01000000-57.out: {MEMLOCK.strip()})",
            "error",
        )
    ]


def test_no_session_and_a_session_that_goes_are_no_trouble(
    tmp_path: Path, follower: Follower, told: list[Event]
) -> None:
    """Before Ray, and after its folder was removed, there is nothing to tell."""
    follower.look()
    (session(tmp_path, "session_1") / "raylet.err").write_text(NOTHING)
    follower.look()
    shutil.rmtree(tmp_path / "session_1")
    follower.look()
    assert told == []


def test_an_agent_looks_every_few_seconds_only(
    tmp_path: Path, follower: Follower, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks nothing is read."""
    clock = iter([100.0, 100.0, 101.0])
    monkeypatch.setattr(follow.time, "monotonic", lambda: next(clock))
    follower.look_now_and_then()
    (session(tmp_path, "session_1") / "raylet.err").write_text(OOM)
    follower.look_now_and_then()
    assert told == []
