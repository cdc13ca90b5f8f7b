"""The cluster as it is now, gathered from agents and supervisor that answer over HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shoal.agent.app import agent_app
from shoal.agent.endpoint import Endpoint, bind
from shoal.engine.app import engine_app
from shoal.ops.snapshot import snapshot
from shoal.state.live import EngineLive
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus

HEAD, WORKER = "127.0.0.1", "127.0.0.2"
ENGINE = EngineStatus(state=EngineState.READY, model="smollm2", last_token_age_s=0.4)


def node(name: str, address: str, state: NodeState = NodeState.UP) -> NodeStatus:
    return NodeStatus(name=name, role="head" if name == "head" else "worker", address=address, state=state, gpus=1)


def free_port() -> int:
    """A port that is free on all of 127.0.0.0/8 at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def record(port: int, created: float = 0.0) -> RunRecord:
    nodes = tuple(
        NodeRecord(name=name, role=role, address=address, gpus=1, agent_url=f"http://{address}:{port}")
        for name, role, address in (("head", "head", HEAD), ("worker-1", "worker", WORKER))
    )
    return RunRecord(
        run_id="0",
        boot_id="",
        cluster="local",
        created=created,
        model="smollm2",
        endpoint="http://127.0.0.1:8000/v1",
        serve_url=f"http://127.0.0.3:{port}",
        temp_dir="/t",
        log_dir="/l",
        api_key_file="/s/api.key",
        nodes=nodes,
    )


def says(*, node: NodeStatus) -> Starlette:
    return agent_app(lambda: node)


def supervisor(status: EngineStatus) -> Starlette:
    async def ask() -> EngineStatus:
        return status

    return engine_app(ask, lambda: EngineLive(engine=status, at=1.0), lambda: "")


def babbles(content: bytes) -> Starlette:
    """A service of somebody else, which answers anything with these bytes."""

    async def answer(_: Request) -> Response:
        return Response(content, media_type="text/html; charset=utf-8")

    return Starlette(routes=[Route("/{path:path}", answer)])


@asynccontextmanager
async def serving(port: int, apps: dict[str, Starlette]) -> AsyncIterator[None]:
    """These applications, by address."""
    endpoints = [Endpoint(app, [bind(address, port)]) for address, app in apps.items()]
    for endpoint in endpoints:
        endpoint.start()
    try:
        yield
    finally:
        await asyncio.gather(*(endpoint.stop() for endpoint in endpoints))


async def seen(apps: dict[str, Starlette]) -> ClusterStatus:
    """The snapshot of a cluster of which these answer; 127.0.0.3 is the supervisor's address."""
    port = free_port()
    async with serving(port, apps):
        return await asyncio.to_thread(snapshot, record(port))


def test_nothing_recorded() -> None:
    """Without a record the cluster is down."""
    assert snapshot(None) == ClusterStatus(cluster="local", state=ClusterState.DOWN)


@pytest.mark.enable_socket
async def test_ready() -> None:
    """Where all answer, the snapshot holds what they said, unchanged."""
    head, worker = node("head", HEAD), node("worker-1", WORKER)
    apps = {HEAD: says(node=head), WORKER: says(node=worker), "127.0.0.3": supervisor(ENGINE)}
    told = await seen(apps)
    port = (told.page or "").removeprefix(f"http://{HEAD}:").removesuffix("/")
    assert told == ClusterStatus(
        cluster="local",
        state=ClusterState.READY,
        endpoint="http://127.0.0.1:8000/v1",
        api_key_file="/s/api.key",
        page=f"http://{HEAD}:{int(port)}/",
        nodes=(head, worker),
        engine=ENGINE,
    )


@pytest.mark.enable_socket
async def test_a_lost_node() -> None:
    """An agent that does not answer is a lost node, with the reason, and the cluster is degraded at best."""
    apps = {HEAD: says(node=node("head", HEAD)), "127.0.0.3": supervisor(ENGINE)}
    status = await seen(apps)
    lost = node("worker-1", WORKER, NodeState.LOST)
    assert status.nodes == (
        node("head", HEAD),
        lost.model_copy(update={"detail": "its agent: connection refused"}),
    )
    assert status.state is ClusterState.DEGRADED


@pytest.mark.enable_socket
async def test_no_supervisor() -> None:
    """Without an answer of the supervisor the engine is not ready."""
    apps = {HEAD: says(node=node("head", HEAD)), WORKER: says(node=node("worker-1", WORKER))}
    status = await seen(apps)
    assert status.engine is not None
    assert (status.state, status.engine.state) == (ClusterState.DEGRADED, EngineState.UNREADY)
    assert status.engine.detail.startswith("its supervisor does not answer: ")


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "contents", [(b"<html>", b"\xff\xfe\x00", b"\xff\xfe\x00"), (b"", b"null", b'{"state": "ready"}')]
)
async def test_somebody_elses_service(contents: tuple[bytes, bytes, bytes]) -> None:
    """A service of somebody else at our ports is no node and no engine, whatever it answers."""
    apps = dict(zip((HEAD, WORKER, "127.0.0.3"), map(babbles, contents), strict=True))
    status = await seen(apps)
    assert [node.state for node in status.nodes] == [NodeState.LOST, NodeState.LOST]
    assert status.state is not ClusterState.READY


@pytest.mark.enable_socket
def test_after_everything_was_killed(tmp_path: Path) -> None:
    """A record whose processes are all gone gives lost nodes, not an error."""
    status = snapshot(record(free_port()))
    assert (status.state, [item.state for item in status.nodes]) == (ClusterState.DEGRADED, [NodeState.LOST] * 2)
