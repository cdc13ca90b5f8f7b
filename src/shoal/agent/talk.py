"""What nodes say to each other over the agents' port: heartbeats, what the head heard, and the journal."""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shoal.agent import peers
from shoal.agent.key import shows
from shoal.state import journal
from shoal.state.status import NodeStatus

LONGEST_BODY = 1 << 16
MOST_EVENTS = 5000
Handler = Callable[[Request], Awaitable[Response]]
PEERS = TypeAdapter(tuple[NodeStatus, ...])


class Board:
    """The head's list of who was heard, and when."""

    def __init__(self, lost_after: float) -> None:
        self._lost_after = lost_after
        self._heard: dict[str, peers.Heard] = {}

    def hear(self, status: NodeStatus) -> None:
        """One beat."""
        self._heard = peers.hear(self._heard, status, time.monotonic())

    def view(self) -> tuple[NodeStatus, ...]:
        """All that were heard, as they stand now."""
        return peers.view(self._heard, time.monotonic(), self._lost_after)

    def ages(self) -> tuple[tuple[NodeStatus, float], ...]:
        """What each said last, and the seconds since, by address."""
        now = time.monotonic()
        return tuple((heard.status, now - heard.at) for _, heard in sorted(self._heard.items()))


def with_key(key: Callable[[], str | None], handler: Handler, *, needed: bool) -> Handler:
    """The handler for those who show the key. Where there is none, everybody is let in unless one is ``needed``."""

    async def guarded(request: Request) -> Response:
        known = key()
        if known is None and needed:
            return PlainTextResponse("orders are off: this node has no token of Ray's to know its supervisor by\n", 403)
        if known is not None and not shows(request.headers.get("authorization"), known):
            return PlainTextResponse("the key of this cluster is missing or wrong\n", 401)
        return await handler(request)

    return guarded


async def body_of(request: Request, limit: int = LONGEST_BODY) -> bytes:
    """The body of a request; empty where it is longer than allowed."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > limit:
            return b""
    return data


def talk_routes(
    status: Callable[[], NodeStatus], board: Board, key: Callable[[], str | None], journal_path: Path
) -> tuple[Route, ...]:
    """``POST /beat``, ``GET /peers`` and ``GET /events?since=``."""

    async def beat(request: Request) -> Response:
        try:
            board.hear(NodeStatus.model_validate_json(await body_of(request)))
        except ValidationError:
            return PlainTextResponse("this is no status of a node\n", 400)
        return Response(status().model_dump_json(), media_type="application/json")

    async def heard(_: Request) -> Response:
        return Response(PEERS.dump_json(board.view()), media_type="application/json")

    async def events(request: Request) -> Response:
        try:
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            return PlainTextResponse("since: expected seconds since the epoch\n", 400)
        entries = journal.read(journal_path, since)[-MOST_EVENTS:]
        return JSONResponse([json.loads(entry.line()) for entry in entries])

    return (
        Route("/beat", with_key(key, beat, needed=False), methods=["POST"]),
        Route("/peers", with_key(key, heard, needed=False)),
        Route("/events", with_key(key, events, needed=False)),
    )
