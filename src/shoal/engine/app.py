"""The supervisor's endpoint."""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shoal.agent.status_app import status_app
from shoal.agent.talk import body_of, with_key
from shoal.state.status import EngineState, EngineStatus


def engine_metrics(now: EngineStatus) -> Iterator[Metric]:
    """The engine's gauges."""
    ready = float(now.state is EngineState.READY)
    yield GaugeMetricFamily("shoal_engine_ready", "1 while a token can be produced", ready)
    yield GaugeMetricFamily("shoal_engine_restarts", "Restarts since the supervisor began", now.restarts)
    if (age := now.last_token_age_s) is not None:
        yield GaugeMetricFamily("shoal_engine_last_token_age_seconds", "Age of the last token", age)
    phases = GaugeMetricFamily("shoal_engine_phase_seconds", "Seconds of each phase", labels=["phase"])
    for name, seconds in now.phases.items():
        phases.add_metric([name], seconds)
    yield phases


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
    status: Callable[[], Awaitable[EngineStatus]], fault: Callable[[], str], more: Sequence[Route] = ()
) -> Starlette:
    """The application; ``status`` is awaited for every answer, and asks for a token before it says ready."""
    return status_app(status, lambda now: now.state is EngineState.READY, engine_metrics, fault, more)
