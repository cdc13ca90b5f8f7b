"""What two do at once, what all do at once, and what is left after a long while."""

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.subnets import free_subnet

from shoal.lab import cluster, faults, namespace, soak
from shoal.lab.cluster import Lab
from shoal.lab.init import read_services
from shoal.lab.plan import Wish
from shoal.ops.ask import ask
from shoal.state.status import ClusterState

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the one lab of this module."""
    env = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path_factory.mktemp("lab") / "state")}
    settings = {"SHOAL_RESTART_WINDOW": "5", "SHOAL_LOST_AFTER": "12"}
    wish = Wish(2, "namespace", "sim", subnet=free_subnet(117), clock=True, settings=settings)
    try:
        cluster.up(wish, env, lambda _: None)
        yield env
    finally:
        cluster.down(env)


@pytest.fixture
def lab(shared: dict[str, str]) -> Lab:
    """The lab, ready."""
    here = cluster.current(shared)
    cluster.wait_ready(here, 180)
    return here


def until(true: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:g} s")


def engine(lab: Lab, port: int) -> dict[str, Any]:
    """What the supervisor at that port of the head says of the engine."""
    try:
        with urlopen(f"http://{lab.host('head').address}:{port}/status", timeout=10) as reply:
            document: dict[str, Any] = json.load(reply)
            return document
    except OSError:
        return {"state": "silent", "detail": ""}


def test_of_two_supervisors_one_wins_and_the_other_says_so(lab: Lab, tmp_path: Path) -> None:
    """A second supervisor, with a state folder of its own, waits and names the first; the engine is not touched."""
    head = lab.host("head")
    serve = read_services(Path(head.folder, "services.json").read_text())[1]
    other = {**serve.env, "SHOAL_SERVE_PORT": "8799", "SHOAL_STATE_DIR": str(tmp_path), "SHOAL_NODE_NAME": "second"}
    before = engine(lab, 8701)["pid"]
    argv = (*namespace.enter_argv(namespace.inner(head, lab.record.run.boot_id)), *serve.argv)
    second = subprocess.Popen(argv, env=other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        said = until(lambda: "engine at" in (now := engine(lab, 8799))["detail"] and now, 60)
        assert said["state"] != "ready"
        assert said["pid"] is None
        assert (engine(lab, 8701)["state"], engine(lab, 8701)["pid"]) == ("ready", before)
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(30)


def test_a_full_disk_serves_on_and_is_told(lab: Lab) -> None:
    """With no byte left on the head answers still come; what could not be written down is told afterwards."""
    head, fault = lab.host("head"), faults.FAULTS["disk-full"]
    lab, _ = faults.strike(lab, fault, faults.Target(head))
    try:
        assert len(ask(lab.record.run, "on a full disk?", max_tokens=5).text.split()) == 5
        told = until(lambda: [n for n in cluster.status(lab).nodes if n.role == "head" and "disk" in n.detail], 30)
        assert cluster.status(lab).state is ClusterState.READY
        assert "is full" in told[0].detail
    finally:
        lab, _ = faults.undo(lab, faults.lasting(lab, fault, faults.Target(head)))
    until(lambda: not any("disk" in node.detail for node in cluster.status(lab).nodes), 30)


@pytest.mark.parametrize("order", list(itertools.permutations(("n1", "n2"))), ids="-".join)
def test_after_a_power_cut_everything_comes_back(lab: Lab, order: tuple[str, str]) -> None:
    """All hosts lose power, and are switched on in any order: the endpoint is there again, by itself."""
    for host in lab.record.hosts:
        lab = cluster.power_off(lab, host)
    for name in order:
        lab = cluster.boot(lab, lab.host(name))
        time.sleep(3)
    cluster.wait_ready(lab, 240)
    assert len(ask(lab.record.run, "back?", max_tokens=3).text.split()) == 3


def test_a_soak_finds_nothing(shared: dict[str, str], lab: Lab) -> None:
    """Under random faults no answer is wrong or hangs, ready is no lie, and agent and supervisor do not grow."""
    report = soak.soak(shared, 3.0, 20, lambda _: None)
    grown = {
        watched.name: (watched.first, watched.last)
        for watched in report.processes
        if watched.last[1] > watched.first[1] + 8 or watched.last[0] > watched.first[0] + (20 << 20)
    }
    assert (report.lost, report.lies, report.requests["wrong"], report.requests["hung"], grown) == ([], [], [], 0, {})
    assert report.struck
    assert report.requests["right"] > 0
