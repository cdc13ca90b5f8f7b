"""Hosts of a lab: each stands for itself, and nothing of a lab is left after `down`."""

import subprocess
from pathlib import Path

import psutil
import pytest
from tests.lab.conftest import LOOPBACK, NAMESPACE

from shoal.errors import AlreadyRunning, CommandFailed, NotRunning, PreconditionFailed
from shoal.lab import cluster
from shoal.lab.plan import Wish
from shoal.lab.sim.answers import answer, chat_prompt
from shoal.ops.ask import ask
from shoal.state.status import ClusterState

pytestmark = pytest.mark.lab


def out(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def segments() -> set[str]:
    """Shared memory as Python's multiprocessing names it: it bears nobody's mark."""
    return {path.name for path in Path("/dev/shm").glob("psm_*")}


def marks(mark: str, before: set[str]) -> dict[str, list[str]]:
    """What a lab could leave here: names with its mark, mounts, processes, shared memory that was not there before."""
    return {
        "namespaces": [line for line in out("ip", "netns").splitlines() if mark in line],
        "interfaces": [name for name in psutil.net_if_addrs() if mark in name],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if mark in line],
        "shared memory": sorted(segments() - before),
        "processes": [
            str(p.pid) for p in psutil.process_iter(["cmdline"]) if mark in " ".join(p.info["cmdline"] or ())
        ],
    }


PLACES = ("namespaces", "interfaces", "mounts", "shared memory", "processes")
NOTHING: dict[str, list[str]] = {place: [] for place in PLACES}


def said_on(lab: cluster.Lab, host: str, *command: str) -> list[str]:
    lines: list[str] = []
    assert cluster.run(lab, host, command, lines.append) == 0, lines
    return lines


@pytest.mark.parametrize("wish", [NAMESPACE, LOOPBACK], ids=["namespace", "loopback"])
def test_a_lab_answers_and_leaves_nothing(env: dict[str, str], wish: Wish, tmp_path: Path) -> None:
    """It comes up, its simulated engine answers what follows from the prompt, and `down` removes every trace."""
    before = segments()
    lab = cluster.up(wish, env, lambda _: None)
    cluster.wait_ready(lab, 120)
    answered = ask(lab.record.run, "why?", max_tokens=5)
    assert answered.text == answer(chat_prompt([{"role": "user", "content": "why?"}]), 5)
    with pytest.raises(AlreadyRunning):
        cluster.up(wish, env, lambda _: None)
    assert cluster.down(env) == ["took down 2 hosts"]
    assert marks(lab.record.tag, before) == NOTHING
    assert marks(str(tmp_path), before) == NOTHING
    assert cluster.down(env) == []


def test_a_host_stands_for_itself(env: dict[str, str]) -> None:
    """Address, hostname, process tree, /dev/shm, /tmp/ray and disk are a host's own; a reboot keeps the disk alone."""
    lab = cluster.up(NAMESPACE, env, lambda _: None)
    assert [said_on(lab, name, "hostname") for name in ("n1", "n2", "head")] == [["n1"], ["n2"], ["n1"]]
    for name in ("n1", "n2"):
        said_on(lab, name, "ping", "-c1", "-W5", "n2" if name == "n1" else "n1")
        said_on(lab, name, "sh", "-c", f"echo {name} > /dev/shm/mine; echo {name} > /tmp/ray/mine")
    assert said_on(lab, "n2", "cat", "/dev/shm/mine", "/tmp/ray/mine") == ["n2", "n2"]
    first = said_on(lab, "n2", "ps", "-o", "args=", "-p", "1")
    assert "shoal.lab.init" in first[0]
    lab = cluster.reboot(lab, lab.host("n2"))
    assert said_on(lab, "n2", "sh", "-c", "ls /dev/shm; cat /tmp/ray/mine") == ["n2"]
    cluster.wait_ready(lab, 120)


def test_a_host_that_is_off_says_so(env: dict[str, str]) -> None:
    """A command on a host without power is an error with its name."""
    lab = cluster.up(NAMESPACE, env, lambda _: None)
    lab = cluster.power_off(lab, lab.host("n2"))
    with pytest.raises(CommandFailed, match="n2 is off"):
        cluster.run(lab, "n2", ["true"], lambda _: None)
    assert cluster.status(lab).state is not ClusterState.READY


def test_a_taken_subnet_is_refused(env: dict[str, str]) -> None:
    """Before anything is made, the addresses of this machine are looked at."""
    wish = Wish(1, "namespace", "sim", subnet="127.0.0")
    with pytest.raises(PreconditionFailed, match=r"127\.0\.0\.0/24 is in use"):
        cluster.up(wish, env, lambda _: None)
    with pytest.raises(NotRunning):
        cluster.current(env)
