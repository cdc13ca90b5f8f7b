"""The record of a cluster that was started from this machine."""

import stat
from pathlib import Path

import pytest

from shoal.errors import ShoalError
from shoal.state import run as runs
from shoal.state.run import NodeRecord, Proc, RunRecord

RECORD = RunRecord(
    run_id="0123abcd",
    cluster="local",
    created=1790000000.5,
    model="smollm2",
    endpoint="http://127.0.0.1:8000/v1",
    serve_url="http://127.0.0.1:8701",
    temp_dir="/tmp/shoal-x",
    log_dir="/s/logs",
    api_key_file="/s/api.key",
    nodes=(NodeRecord(name="head", role="head", address="127.0.0.1", gpus=1, agent_url="http://127.0.0.1:8700"),),
    procs=(Proc(name="head", kind="agent", pid=10, started=1790000001.25),),
)


def test_where_nothing_was_started_there_is_no_record(tmp_path: Path) -> None:
    """A folder without a record, or no folder at all, is a cluster that was never started."""
    assert [runs.load(tmp_path), runs.load(tmp_path / "none")] == [None, None]


def test_a_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """A record survives the file, to the last digit of a start time."""
    runs.save(tmp_path, RECORD)
    assert runs.load(tmp_path) == RECORD


def test_a_record_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The record's file has mode 0600 and is the only file that saving leaves."""
    runs.save(tmp_path, RECORD)
    assert [(file.name, stat.S_IMODE(file.stat().st_mode)) for file in tmp_path.iterdir()] == [("run.json", 0o600)]


def test_a_process_is_added_to_a_copy() -> None:
    """Adding a process gives a new record with the process last, and leaves the old one."""
    proc = Proc(name="engine", kind="serve", pid=11, started=2.0)
    grown = RECORD.adding(proc)
    assert grown == RECORD.model_copy(update={"procs": (RECORD.procs[0], proc)})
    assert len(RECORD.procs) == 1


def test_a_later_save_replaces_the_record(tmp_path: Path) -> None:
    """What was saved last is what is read."""
    runs.save(tmp_path, RECORD)
    grown = RECORD.adding(Proc(name="engine", kind="serve", pid=11, started=2.0))
    runs.save(tmp_path, grown)
    assert runs.load(tmp_path) == grown


def test_a_removed_record_is_forgotten_and_may_be_removed_again(tmp_path: Path) -> None:
    """Removing forgets the record, and is no error where there is none."""
    runs.save(tmp_path, RECORD)
    runs.remove(tmp_path)
    runs.remove(tmp_path)
    assert runs.load(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("", 1), ("{", 1), ("[]", 1), (RECORD.model_dump_json(exclude={"run_id", "nodes"}), 2), ('{"x": 1}', 11)],
)
def test_a_record_of_another_version_is_told_with_the_remedy(tmp_path: Path, text: str, wrong: int) -> None:
    """A record that cannot be understood is never taken for no cluster, and the remedy names the file."""
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(ShoalError) as raised:
        runs.load(tmp_path)
    assert (raised.value.what, raised.value.why, raised.value.fix) == (
        f"cannot read {file}: {wrong} fields are wrong",
        "it was written by another version of shoal, or damaged",
        f"look for processes that still run, then remove {file}",
    )
