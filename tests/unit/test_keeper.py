"""What keeps a local cluster's agents and supervisor running."""

import io
import json
from pathlib import Path

import pytest

from shoal.facts.process import read_boot_id
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.ops import keeper
from shoal.ops.keeper import Keeper, delay, settings_file
from shoal.state import run as runs
from shoal.state.run import Proc, RunRecord

DEAD = Proc(name="worker-1", kind="agent", pid=1, ticks=-1)


def record(tmp_path: Path) -> RunRecord:
    return RunRecord(
        run_id="r",
        boot_id=read_boot_id(LocalHost()),
        cluster="local",
        created=0.0,
        model="m",
        endpoint="",
        serve_url="",
        temp_dir=str(tmp_path),
        log_dir=str(tmp_path),
        api_key_file="",
        nodes=(),
        procs=(DEAD, Proc(name="keeper", kind="keep", pid=1, ticks=-1)),
    )


def test_pauses_grow_and_end() -> None:
    """The first start follows at once, each further one after twice the pause, and a sixth never."""
    starts = tuple(float(number) for number in range(6))
    assert [delay(starts[:count], 10.0) for count in range(6)] == [0.0, 1.0, 2.0, 4.0, 8.0, None]
    assert delay(starts, 1000.0) == 0.0


def test_an_agent_that_ended_is_started_with_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead agent is started with the settings of its plan and put on record; the keeper itself is not."""
    runs.save(tmp_path, record(tmp_path))
    settings_file(tmp_path).write_text(json.dumps({"worker-1": {"RAY_MODE": "worker"}}))
    started: list[tuple[str, str, dict[str, str]]] = []
    new = Proc(name="worker-1", kind="agent", pid=4711, ticks=5)

    def spawn(record: RunRecord, name: str, kind: str, env: dict[str, str]) -> Proc:
        started.append((name, kind, env))
        return new

    def look_away(seconds: float) -> None:
        found = runs.load(tmp_path)
        assert found is not None
        assert found.procs == (record(tmp_path).procs[1], new)
        runs.remove(tmp_path)

    monkeypatch.setattr(keeper, "spawn", spawn)
    monkeypatch.setattr("time.sleep", look_away)
    out = io.StringIO()
    assert Keeper(tmp_path, "r", {"HOME": "/h"}, EventLog(out)).run() == 0
    assert started == [("worker-1", "agent", {"HOME": "/h", "RAY_MODE": "worker"})]
    assert "worker-1 (its agent process) had ended: started again as pid 4711" in out.getvalue()


def test_another_run_is_none_of_its_business(tmp_path: Path) -> None:
    """A keeper ends when its run is over, or another one has begun."""
    assert Keeper(tmp_path, "r", {}, EventLog(io.StringIO())).run() == 0
    runs.save(tmp_path, record(tmp_path))
    assert Keeper(tmp_path, "other", {}, EventLog(io.StringIO())).run() == 0
