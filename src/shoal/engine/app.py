"""The supervisor's endpoint."""

import json
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shoal.agent.status_app import status_app
from shoal.agent.talk import body_of, with_key
from shoal.engine.metrics import engine_metrics
from shoal.state.live import EngineLive
from shoal.state.status import EngineState, EngineStatus


def live_route(live: Callable[[], EngineLive]) -> Route:
    """``GET /live``: what moves, for the status page and the terminal view. It asks nothing of the engine."""

    async def answer(_: Request) -> Response:
        return Response(live().model_dump_json(), media_type="application/json")

    return Route("/live", answer)


def restart_route(restart: Callable[[str], bool], key: Callable[[], str | None]) -> Route:
    """``POST /orders/restart`` with ``{"how": "drain" | "now" | "rolling"}``, for who shows the cluster's key."""

    async def order(request: Request) -> Response:
        try:
            taken = restart(str(json.loads(await body_of(request))["how"]))
        except (ValueError, KeyError, TypeError):
            return PlainTextResponse('expected {"how": "drain"}, "now" or "rolling"\n', 400)
        if not taken:
            return PlainTextResponse("there is no engine yet: its model is being looked at\n", 409)
        return PlainTextResponse("restarting\n", 202)

    return Route("/orders/restart", with_key(key, order, needed=True), methods=["POST"])


def engine_app(
    status: Callable[[], Awaitable[EngineStatus]],
    live: Callable[[], EngineLive],
    fault: Callable[[], str],
    more: Sequence[Route] = (),
) -> Starlette:
    """The application; ``status`` asks for a token before it says ready, ``live`` tells what is known already.

    So Prometheus puts no load on the engine.
    """

    async def metrics() -> Sequence[Metric]:
        return tuple(engine_metrics(live()))

    more = (live_route(live), *more)
    return status_app(status, lambda now: now.state is EngineState.READY, metrics, fault, more)
