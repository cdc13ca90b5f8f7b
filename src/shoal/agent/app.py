"""The agent's endpoint."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.routing import Route

from shoal.agent.status_app import status_app
from shoal.state.status import NodeState, NodeStatus


def node_metrics(now: NodeStatus) -> Iterator[Metric]:
    """The node's gauges."""
    up = GaugeMetricFamily("shoal_node_up", "1 while the node is joined and verified", labels=["node", "role"])
    up.add_metric([now.name, now.role], float(now.state is NodeState.UP))
    yield up
    restarts = GaugeMetricFamily("shoal_node_restarts", "Ray restarts in the last ten minutes", labels=["node"])
    restarts.add_metric([now.name], now.restarts)
    yield restarts
    gpus = GaugeMetricFamily("shoal_node_gpus", "GPUs offered to Ray", labels=["node"])
    gpus.add_metric([now.name], now.gpus)
    yield gpus


def agent_app(status: Callable[[], NodeStatus], more: Sequence[Route] = ()) -> Starlette:
    """The application; ``status`` is asked for every answer."""

    async def ask() -> NodeStatus:
        return status()

    def fault() -> str:
        now = status()
        return now.detail or "gave up" if now.state is NodeState.FAILED else ""

    return status_app(ask, lambda now: now.state is NodeState.UP, node_metrics, fault, more)
