"""Orphans of an agent that was killed: found by id, start and boot, or not at all."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shoal.agent.family import Family, FamilyFile, Member, below, living, of
from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost

SLEEP = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "


@pytest.fixture
def tree() -> Iterator[psutil.Process]:
    """A process of this test with a child."""
    argv = [sys.executable, "-c", SLEEP + "print('on', flush=True); time.sleep(60)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        whole = psutil.Process(process.pid)
        members = [whole, *whole.children()]
        yield whole
        for member in members:
            if member.is_running():
                member.kill()


async def test_what_a_killed_agent_left_is_ended(tree: psutil.Process, tmp_path: Path) -> None:
    """A remembered process and all below it are ended, and after that nothing is remembered."""
    host = LocalHost()
    FamilyFile(host, tmp_path / "a.json").remember(below(host, tree.pid))
    children = tree.children()
    found, left = await FamilyFile(host, tmp_path / "a.json").end_orphans()
    assert ({one.pid for one in found}, left) == ({tree.pid, *(child.pid for child in children)}, [])
    assert FamilyFile(host, tmp_path / "a.json").read().members == ()


def test_a_process_that_took_over_an_id_is_nobody_of_ours(tree: psutil.Process) -> None:
    """The same id with another start, or in another boot, is never taken for ours."""
    host = LocalHost()
    family = of(host, [tree.pid])
    other_start = Family(boot_id=family.boot_id, members=(Member(pid=tree.pid, ticks=family.members[0].ticks + 1),))
    assert [one.pid for one in living(host, family)] == [tree.pid]
    assert (living(host, other_start), living(host, family.model_copy(update={"boot_id": "x"}))) == ([], [])


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    """A file that is torn or missing means that nothing is known, and nothing is ended."""
    path = tmp_path / "a.json"
    path.write_text('{"boot_id": "x", "memb')
    assert FamilyFile(LocalHost(), path).read() == Family(boot_id="")
    assert FamilyFile(LocalHost(), tmp_path / "none.json").read() == Family(boot_id="")
    assert living(FakeHost(), Family(boot_id="")) == []
