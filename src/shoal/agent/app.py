"""The agent's endpoint: ``/healthz``, ``/readyz``, ``/status``, ``/metrics``. Nothing here is secret, nothing acts."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shoal.state.status import NodeState, NodeStatus


class NodeMetrics:
    """A Prometheus collector over the node's status: computed when asked, nothing kept."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """The node's gauges."""
        now = self._status()
        up = GaugeMetricFamily("shoal_node_up", "1 while the node is joined and verified", labels=["node", "role"])
        up.add_metric([now.name, now.role], float(now.state is NodeState.UP))
        yield up
        restarts = GaugeMetricFamily("shoal_node_restarts", "Ray restarts in the last ten minutes", labels=["node"])
        restarts.add_metric([now.name], now.restarts)
        yield restarts
        gpus = GaugeMetricFamily("shoal_node_gpus", "GPUs offered to Ray", labels=["node"])
        gpus.add_metric([now.name], now.gpus)
        yield gpus


def agent_app(status: Callable[[], NodeStatus]) -> Starlette:
    """The application; ``status`` is asked for every answer."""
    registry = CollectorRegistry()
    registry.register(NodeMetrics(status))

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        now = status()
        ready = now.state is NodeState.UP
        return PlainTextResponse("ready\n" if ready else f"{now.state.value}: {now.detail}\n", 200 if ready else 503)

    async def document(_: Request) -> Response:
        return Response(status().model_dump_json(), media_type="application/json")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", document),
            Route("/metrics", metrics),
        ]
    )
