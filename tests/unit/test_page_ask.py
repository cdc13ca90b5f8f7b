"""What the head's agent asks of others for its page: made-up agents, a supervisor and an engine, on loopback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.page.ask import Asker
from shoal.agent.page.chat import Chat, Message, Question
from shoal.spec.env import AgentSettings, agent_settings
from shoal.state.journal import Entry, Journal, journal_file
from shoal.state.live import EngineLive, NodeLive
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

HEAD, WORKER, LIAR, SUPERVISOR = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"
OWN = NodeStatus(name="n1", role="head", address=HEAD, state=NodeState.UP)
ENGINE = EngineLive(
    engine=EngineStatus(state=EngineState.READY, model="m"), at=1.0, endpoint="http://x/v1", expected={"127.0.0.9": 8}
)

pytestmark = pytest.mark.enable_socket


def worker(address: str, name: str = "n2") -> NodeStatus:
    return NodeStatus(name=name, role="worker", address=address, state=NodeState.UP)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def agent(status: NodeStatus, entries: tuple[Entry, ...] = ()) -> Starlette:
    """An agent, as far as the page asks it."""

    async def live(_: Request) -> Response:
        return Response(NodeLive(node=status, at=5.0).model_dump_json())

    async def events(_: Request) -> Response:
        return JSONResponse([json.loads(entry.line()) for entry in entries])

    return Starlette(routes=[Route("/live", live), Route("/events", events)])


def supervisor() -> Starlette:
    async def live(_: Request) -> Response:
        return Response(ENGINE.model_dump_json())

    return Starlette(routes=[Route("/live", live)])


@asynccontextmanager
async def serving(*apps: tuple[str, int, Starlette]) -> AsyncIterator[None]:
    """These applications, at an address and a port each."""
    endpoints = [Endpoint(app, [bind(address, port)]) for address, port, app in apps]
    for endpoint in endpoints:
        endpoint.start()
    try:
        yield
    finally:
        await asyncio.gather(*(endpoint.stop() for endpoint in endpoints))


def settings(folder: Path, port: int, serve_port: int) -> AgentSettings:
    env = {"RAY_MODE": "head", "VLLM_HOST_IP": HEAD, "SHOAL_STATE_DIR": str(folder)}
    return agent_settings({**env, "SHOAL_AGENT_PORT": str(port), "SHOAL_SERVE_PORT": str(serve_port)})


def asker(folder: Path, port: int, serve_port: int, *heard: NodeStatus) -> Asker:
    return Asker(settings(folder, port, serve_port), lambda: OWN, lambda: heard, lambda: None, folder)


async def test_all_are_asked_at_once(tmp_path: Path) -> None:
    """Nodes that were heard and nodes that are expected, the engine, and the journals of all, in the order of time."""
    port, serve_port = free_port(), free_port()
    Journal(journal_file(tmp_path, "n1"), "n1", lambda _: None).append(Entry(2.0, "n1", "up", "here", "warn"))
    far = (Entry(1.0, "n2", "join", "there"), Entry(3.0, "n2", "up", "later"))
    apps = (
        (HEAD, port, agent(OWN)),
        (WORKER, port, agent(worker(WORKER), far)),
        (SUPERVISOR, serve_port, supervisor()),
    )
    async with serving(*apps):
        told = await asker(tmp_path, port, serve_port, worker(WORKER)).look()
    assert [(node.node.name, node.node.state.value) for node in told.nodes] == [
        ("n1", "up"),
        ("n2", "up"),
        ("127.0.0.9", "waiting"),
    ]
    assert (told.status.engine, told.status.endpoint) == (ENGINE.engine, "http://x/v1")
    assert [(event.node, event.kind, event.level) for event in told.events] == [
        ("n2", "join", "info"),
        ("n1", "up", "warn"),
        ("n2", "up", "info"),
    ]


async def test_nobody_speaks_for_another(tmp_path: Path) -> None:
    """A reading of another address is passed over, and a name that a node says is its address is not looked up."""
    port, serve_port = free_port(), free_port()
    liar = worker("127.0.0.8", "liar")
    heard = (worker(LIAR), worker("evil.example", "named"))
    async with serving((HEAD, port, agent(OWN)), (LIAR, port, agent(liar))):
        told = await asker(tmp_path, port, serve_port, *heard).look()
    assert [(node.node.address, node.at) for node in told.nodes] == [(HEAD, 5.0), (LIAR, 0.0)]
    engine = told.status.engine
    assert engine is not None
    assert (engine.state, engine.detail) == (
        EngineState.UNREADY,
        "its supervisor does not answer: connection refused",
    )


def engine(reply: Response, asked: list[tuple[str | None, object]]) -> Starlette:
    """An engine's API that answers so, and remembers what it was asked with."""

    async def chat(request: Request) -> Response:
        asked.append((request.headers.get("authorization"), await request.json()))
        return reply

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


QUESTION = Question(messages=(Message(role="user", content="hello"),))


async def answered(port: int, key: str | None = "k") -> tuple[int, str]:
    """What the page gets for a question."""
    reply = await Chat().answer(f"http://{HEAD}:{port}/v1", QUESTION, "m", key)
    if isinstance(reply, StreamingResponse):
        parts = [part async for part in reply.body_iterator]
        return reply.status_code, b"".join(part for part in parts if isinstance(part, bytes)).decode()
    return reply.status_code, bytes(reply.body).decode()


async def test_a_question_is_handed_on_with_the_key() -> None:
    """The engine sees the key and the model, which the browser never sent; its words come back as they are."""
    port, asked = free_port(), list[tuple[str | None, object]]()
    async with serving((HEAD, port, engine(Response("data: x\n\n"), asked))):
        assert await answered(port) == (200, "data: x\n\n")
    body = {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 512,
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert asked == [("Bearer k", body)]


async def test_a_refusal_is_told() -> None:
    """What the engine refuses with is shown; an engine that is not there is named as that."""
    port = free_port()
    async with serving((HEAD, port, engine(Response("no room", 503), []))):
        assert await answered(port) == (502, '{"error":"the engine answered 503: no room"}')
    status, words = await answered(free_port())
    assert (status, words.startswith('{"error":"the engine does not answer: ')) == (502, True)
