"""Our probes against a real Ray: a head on 127.0.0.1 and a worker on 127.0.0.2, token authentication on."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shoal.errors import ConfigError, NotRunning
from shoal.facts.grpc_health import HEALTHY, Health, serving, unhealthy
from shoal.facts.ray import RayTable, drain_argv, parse_drain, parse_table, table_argv

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

GCS = "127.0.0.1:29000"
BIN = Path(sys.executable).parent
COMMON = ("--num-cpus=1", "--num-gpus=1", "--object-store-memory=100000000", "--block", "--disable-usage-stats")
HEAD = ("--head", "--no-monitor", "--port=29000", "--ray-client-server-port=29007", "--include-dashboard=false")
WORKER = (f"--address={GCS}",)


@dataclass(frozen=True)
class Node:
    """A `ray start --block` of ours; its ports are pinned in the hundred from ``ports`` on."""

    address: str
    ports: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def health(self) -> Health:
        return probe(self.address, self.ports + 1)

    def raylet(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if child.name() == "raylet")


@dataclass(frozen=True)
class Cluster:
    """The head, its folder and the environment that holds the token."""

    folder: Path
    env: dict[str, str]
    head: Node

    def child(self, argv: tuple[str, ...], **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, env=self.env | env, capture_output=True, text=True, timeout=60, check=False)

    def table(self, wait: str | None = None, timeout: float = 5.0) -> RayTable:
        return parse_table(self.child(table_argv(sys.executable, GCS, wait, timeout)).stdout)


def probe(host: str, port: int) -> Health:
    return asyncio.run(serving(host, port, timeout=1))


def until(true: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for a condition, or fail with what ``what`` tells."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(what())
        time.sleep(0.1)


def node_argv(address: str, ports: int, folder: Path, role: tuple[str, ...]) -> list[str]:
    pinned = {
        "node-manager-port": 1,
        "object-manager-port": 2,
        "runtime-env-agent-port": 3,
        "dashboard-agent-listen-port": 4,
        "dashboard-agent-grpc-port": 5,
        "metrics-export-port": 6,
        "min-worker-port": 20,
        "max-worker-port": 99,
    }
    flags = [f"--{name}={ports + offset}" for name, offset in pinned.items()]
    return [str(BIN / "ray"), "start", f"--node-ip-address={address}", f"--temp-dir={folder}", *role, *COMMON, *flags]


@contextmanager
def node(address: str, ports: int, folder: Path, role: tuple[str, ...], env: dict[str, str]) -> Iterator[Node]:
    """A node, up; at the end exactly its processes are stopped."""
    temp = folder / address.rpartition(".")[2]
    log = folder / f"{temp.name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            node_argv(address, ports, temp, role), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    started = Node(address, ports, process, log)
    try:
        until(
            lambda: process.poll() is not None or started.health().serving,
            60,
            lambda: f"{address} did not come up:\n{log.read_text()[-3000:]}",
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield started
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a `ray start` and every process under it, each by its own id."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)
    _, left = psutil.wait_procs(family, timeout=5)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="shoal-ray-"))
    try:
        token = folder / "token"
        token.write_text("a-token-of-this-test-only-" + "0" * 20, encoding="utf-8")
        token.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env = kept | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        head_env = env | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        with node("127.0.0.1", 29000, folder, HEAD, head_env) as head:
            yield Cluster(folder, env, head)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined(cluster: Cluster, address: str, ports: int) -> Iterator[Node]:
    env = cluster.env | {"RAY_START_HOOK": "shoal.agent.ray_hook.keep_loopback"}
    with node(address, ports, cluster.folder, WORKER, env) as worker:
        assert cluster.table(wait=address, timeout=30).alive_at(address) is not None, worker.log.read_text()[-3000:]
        yield worker


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Iterator[Node]:
    with joined(cluster, "127.0.0.2", 29100) as started:
        yield started


@pytest.fixture
def spare(cluster: Cluster) -> Iterator[Node]:
    """A worker to lose: each test has its own."""
    with joined(cluster, "127.0.0.3", 29200) as started:
        yield started


def test_gcs_and_raylets_say_that_they_serve(cluster: Cluster, worker: Node) -> None:
    assert probe("127.0.0.1", 29000) == HEALTHY
    assert cluster.head.health() == HEALTHY
    assert worker.health() == HEALTHY


def test_the_table_shows_both_nodes_at_the_addresses_they_were_given(cluster: Cluster, worker: Node) -> None:
    table = cluster.table()
    nodes = {address: table.alive_at(address) for address in ("127.0.0.1", "127.0.0.2")}
    assert {address: row and (row.is_head, row.gpus) for address, row in nodes.items()} == {
        "127.0.0.1": (True, 1.0),
        "127.0.0.2": (False, 1.0),
    }
    assert {row.address for row in table.nodes} <= {"127.0.0.1", "127.0.0.2", "127.0.0.3"}


def test_the_table_names_the_cluster_and_the_versions(cluster: Cluster) -> None:
    table = cluster.table()
    assert table.cluster_id is not None
    assert len(table.cluster_id) == 56
    assert table.python == ".".join(map(str, sys.version_info[:3]))
    assert table.ray.startswith("2.")


def test_waiting_for_a_node_that_never_comes_prints_the_table_and_ends_with_3(cluster: Cluster) -> None:
    ended = cluster.child(table_argv(sys.executable, GCS, wait="127.0.0.9", timeout=0.5))
    assert ended.returncode == 3
    assert parse_table(ended.stdout).alive_at("127.0.0.1") is not None


def test_a_wrong_token_is_named_as_such(cluster: Cluster) -> None:
    wrong = cluster.folder / "wrong"
    wrong.write_text("not-the-token-of-this-cluster-" + "1" * 20, encoding="utf-8")
    ended = cluster.child(table_argv(sys.executable, GCS), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert ended.returncode == 4
    with pytest.raises(ConfigError) as raised:
        parse_table(ended.stdout)
    assert raised.value.why == f"token mismatch: GCS at {GCS} refused the token in {wrong}"


def test_a_gcs_that_is_not_there_is_named_within_a_second_or_two(cluster: Cluster) -> None:
    ended = cluster.child(table_argv(sys.executable, "127.0.0.1:29299"))
    assert ended.returncode == 4
    with pytest.raises(NotRunning) as raised:
        parse_table(ended.stdout)
    assert raised.value.why == "GCS at 127.0.0.1:29299: connection refused"


def test_nothing_of_the_head_listens_beyond_loopback(cluster: Cluster) -> None:
    # A worker's raylet does: Ray binds to loopback only where the node's own address is exactly 127.0.0.1.
    lan = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not lan:
        pytest.skip("this machine has no address but loopback")
    found = {(address, port): probe(address, port).reason for address in lan for port in (29000, 29001, 29002)}
    assert set(found.values()) == {"connection refused"}, found


def test_a_killed_raylet_no_longer_serves(spare: Node) -> None:
    spare.raylet().kill()
    until(lambda: not spare.health().serving, 10, lambda: "the port still serves")
    assert spare.health() == unhealthy("connection refused")
    # Its `ray start` ends by itself; on a SIGTERM before that it drains the dead node for up to 30 s.
    assert spare.process.wait(15) == 1


def test_an_idle_node_is_drained_and_then_dead_with_a_reason(cluster: Cluster, spare: Node) -> None:
    row = cluster.table().alive_at(spare.address)
    assert row is not None
    ended = cluster.child(drain_argv(sys.executable, GCS, row.node_id, deadline=5, message="a test"))
    assert ended.returncode == 0
    assert parse_drain(ended.stdout).accepted
    until(lambda: not spare.health().serving, 20, lambda: "the drained node still serves")
    dead = next(one for one in cluster.table().nodes if one.node_id == row.node_id)
    assert not dead.alive
    assert dead.death_reason
