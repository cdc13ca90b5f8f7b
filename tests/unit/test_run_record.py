"""The record of a cluster that was started from this machine."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.errors import ShoalError
from shoal.state import run as runs
from shoal.state.run import NodeRecord, Proc, RunRecord

RECORD = RunRecord(
    run_id="0123abcd",
    boot_id="4b371282-b911-4a5d-8a7b-e2e5b507f9e5",
    cluster="local",
    created=1790000000.5,
    model="smollm2",
    endpoint="http://127.0.0.1:8000/v1",
    serve_url="http://127.0.0.1:8701",
    temp_dir="/tmp/shoal-x",
    log_dir="/s/logs",
    api_key_file="/s/api.key",
    nodes=(NodeRecord(name="head", role="head", address="127.0.0.1", gpus=1, agent_url="http://127.0.0.1:8700"),),
    procs=(Proc(name="head", kind="agent", pid=10, ticks=530434),),
)


def test_where_nothing_was_started_there_is_no_record(tmp_path: Path) -> None:
    """A folder without a record, or no folder at all, is a cluster that was never started."""
    assert [runs.load(tmp_path), runs.load(tmp_path / "none")] == [None, None]


def test_a_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """A record survives the file, to the last tick."""
    runs.save(tmp_path, RECORD)
    assert runs.load(tmp_path) == RECORD


def test_a_record_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The record's file has mode 0600 and is the only file that saving leaves."""
    runs.save(tmp_path, RECORD)
    assert [(file.name, stat.S_IMODE(file.stat().st_mode)) for file in tmp_path.iterdir()] == [("run.json", 0o600)]


def test_a_process_is_added_to_a_copy() -> None:
    """Adding a process gives a new record with the process last, and leaves the old one."""
    proc = Proc(name="engine", kind="serve", pid=11, ticks=2)
    grown = RECORD.adding(proc)
    assert grown == RECORD.model_copy(update={"procs": (RECORD.procs[0], proc)})
    assert len(RECORD.procs) == 1


def test_a_later_save_replaces_the_record(tmp_path: Path) -> None:
    """What was saved last is what is read."""
    runs.save(tmp_path, RECORD)
    grown = RECORD.adding(Proc(name="engine", kind="serve", pid=11, ticks=2))
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
    [
        ("", 1),
        ("{", 1),
        ("[]", 1),
        (RECORD.model_dump_json(exclude={"run_id", "nodes"}), 2),
        ('{"x": 1}', 12),
        ("\udcff", 1),
    ],
)
def test_a_record_of_another_version_is_told_with_the_remedy(tmp_path: Path, text: str, wrong: int) -> None:
    """A record that cannot be understood is never taken for no cluster, and the remedy names the file."""
    file = tmp_path / "run.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ShoalError) as raised:
        runs.load(tmp_path)
    assert (raised.value.what, raised.value.why, raised.value.fix) == (
        f"cannot read {file}: {wrong} fields are wrong",
        "it was written by another version of shoal, or damaged",
        f"look for processes that still run, then remove {file}",
    )


def make_folder(file: Path) -> None:
    file.mkdir()


def make_loop(file: Path) -> None:
    file.symlink_to(file)


@pytest.mark.parametrize(("make", "number"), [(make_folder, errno.EISDIR), (make_loop, errno.ELOOP)])
def test_a_record_that_cannot_be_read_is_told_with_the_remedy(
    tmp_path: Path, make: Callable[[Path], None], number: int
) -> None:
    """Something that cannot be read in the record's place is never taken for no cluster."""
    make(tmp_path / "run.json")
    assert refusal(tmp_path) == os.strerror(number)


def test_a_record_of_another_user_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that we may not read is never taken for no cluster."""
    runs.save(tmp_path, RECORD)
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refusal(tmp_path) == os.strerror(errno.EACCES)


def denied(file: Path) -> bytes:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))


def refusal(folder: Path) -> str:
    """Why the folder's record cannot be read; the error names its path and what to look at."""
    file = folder / "run.json"
    with pytest.raises(ShoalError) as raised:
        runs.load(folder)
    assert raised.value.what == f"cannot read {file}"
    assert raised.value.fix == f"ls -ld {file}   # it must be a file that you may read"
    return raised.value.why
