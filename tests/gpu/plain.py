"""The same engine on the same hosts by hand: Ray's head, Ray's worker, vLLM's server, each at the earliest moment."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
from tests.gpu import load
from tests.gpu.hosts import API, ENDPOINT, GCS, HEAD, SUBNET, Wish, mesh, node_env
from tests.gpu.place import Place

from shoal.agent.ray_command import start_argv, start_env
from shoal.lab import namespace
from shoal.lab.cluster import Lab
from shoal.plan.engine import GUARD
from shoal.plan.ports import node_ports
from shoal.spec.env import agent_settings

START = 240.0
KEY = "plain"


def wait_for(what: Callable[[], bool], seconds: float, name: str) -> None:
    """Wait until it is so; RuntimeError after ``seconds``."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(f"{name}: not within {seconds:g} s")
        time.sleep(0.05)


def listening(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def token(model: str) -> bool:
    """Whether one token comes."""
    shape = load.Shape(prompt=4, answer=1, requests=1, streams=1)
    return bool(load.measure(ENDPOINT, KEY, model, shape)["failed"] == 0)


class Children:
    """Processes on the hosts; their logs are kept as evidence."""

    def __init__(self, place: Place, lab: Lab) -> None:
        self._place, self._lab = place, lab
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, host: str, argv: tuple[str, ...], env: Mapping[str, str], name: str) -> None:
        """Start one on a host."""
        inner = namespace.inner(self._lab.host(host), self._lab.record.run.boot_id)
        log = self._place.work / "evidence" / "plain" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            words = (*namespace.enter_argv(inner), *argv)
            self._all.append(
                subprocess.Popen(words, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            )  # fmt: skip

    def end(self) -> None:
        """End the last first, and then whatever they had started."""
        family = [one for child in self._all for one in psutil.Process(child.pid).children(recursive=True)]
        for child in reversed(self._all):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(10)
        for one in family:
            if one.is_running():
                one.kill()
        psutil.wait_procs(family, timeout=10)


def without_guard(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The engine's arguments less shoal's own middleware."""
    at = arguments.index("--middleware")
    assert arguments[at + 1] == GUARD
    return arguments[:at] + arguments[at + 2 :]


@contextmanager
def by_hand(place: Place, lab: Lab, wish: Wish, arguments: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Start all of it, yield the seconds to each moment, end all of it. ``arguments`` are vLLM's."""
    children, marks = Children(place, lab), {}
    run = lab.record.run
    envs = [node_env(place, host, run.run_id, wish) | mesh(host.name) for host in lab.record.hosts]
    nodes = [agent_settings(env) for env in envs]
    manager = node_ports(nodes[0].port_base, GCS).node_manager
    began = time.monotonic()
    try:
        children.start("n1", start_argv(sys.executable, nodes[0], 1), start_env(nodes[0], envs[0]), "ray-n1")
        wait_for(lambda: listening(HEAD, GCS), 60, "the GCS")
        marks["gcs"] = round(time.monotonic() - began, 2)
        children.start("n2", start_argv(sys.executable, nodes[1], 1), start_env(nodes[1], envs[1]), "ray-n2")
        for number in (1, 2):
            address = f"{SUBNET}.{number}"
            wait_for(lambda address=address: listening(address, manager), 60, f"the raylet of n{number}")
        marks["raylets"] = round(time.monotonic() - began, 2)
        words = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", *without_guard(arguments))
        children.start("n1", words, envs[0], "vllm")
        wait_for(lambda: listening(HEAD, API) and token(wish.model), START, "a token")
        marks["token"] = round(time.monotonic() - began, 2)
        yield marks
    finally:
        children.end()
        for link in Path("/dev/shm").glob("psm_*"):
            link.unlink(missing_ok=True)
