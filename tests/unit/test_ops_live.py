"""The head's agent asked for the cluster, on loopback: its answer comes in pieces, and is one document."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from shoal.agent.endpoint import Endpoint, bind
from shoal.errors import ShoalError
from shoal.ops import live
from shoal.ops.live import look_once
from shoal.state.live import ClusterLive
from shoal.state.status import ClusterState, ClusterStatus

LIVE = ClusterLive(at=1.0, status=ClusterStatus(cluster="lab", state=ClusterState.READY), nodes=())

pytestmark = pytest.mark.enable_socket


async def answer(*pieces: bytes) -> ClusterLive:
    """What is made of an agent's answer that comes piece by piece."""

    async def told() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0.05)  # a packet of its own

    async def page(_: Request) -> Response:
        return StreamingResponse(told(), media_type="application/json")

    socket = bind("127.0.0.1", 0)
    endpoint = Endpoint(Starlette(routes=[Route("/api/live", page)]), [socket])
    endpoint.start()
    try:
        return await look_once(f"http://127.0.0.1:{socket.getsockname()[1]}", "none")
    finally:
        await endpoint.stop()


async def test_an_answer_in_pieces_is_read_to_its_end() -> None:
    """A document of many nodes is longer than what one read gives."""
    whole = LIVE.model_dump_json().encode()
    assert await answer(whole[:20], whole[20:]) == LIVE


async def test_an_answer_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than any document is refused, in words."""
    monkeypatch.setattr(live, "LONGEST", 30)
    with pytest.raises(ShoalError, match="answers with more than 30 bytes"):
        await answer(b"x" * 20, b"x" * 20)
