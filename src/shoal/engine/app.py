"""The supervisor's endpoint: ``/healthz``, ``/readyz``, ``/status``, ``/metrics``."""

from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shoal.state.status import EngineState, EngineStatus


class EngineMetrics:
    """A Prometheus collector over one status document."""

    def __init__(self, status: EngineStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The engine's gauges."""
        now = self._status
        ready = float(now.state is EngineState.READY)
        yield GaugeMetricFamily("shoal_engine_ready", "1 while a token can be produced", ready)
        yield GaugeMetricFamily("shoal_engine_restarts", "Restarts since the supervisor began", now.restarts)
        if (age := now.last_token_age_s) is not None:
            yield GaugeMetricFamily("shoal_engine_last_token_age_seconds", "Age of the last token", age)
        phases = GaugeMetricFamily("shoal_engine_phase_seconds", "Seconds of each phase", labels=["phase"])
        for name, seconds in now.phases.items():
            phases.add_metric([name], seconds)
        yield phases


def engine_app(status: Callable[[], Awaitable[EngineStatus]]) -> Starlette:
    """The application; ``status`` is asked for every answer."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        now = await status()
        ready = now.state is EngineState.READY
        return PlainTextResponse("ready\n" if ready else f"{now.state.value}: {now.detail}\n", 200 if ready else 503)

    async def document(_: Request) -> Response:
        return Response((await status()).model_dump_json(), media_type="application/json")

    async def metrics(_: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(EngineMetrics(await status()))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", document),
            Route("/metrics", metrics),
        ]
    )
