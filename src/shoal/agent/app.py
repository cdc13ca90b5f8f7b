"""The agent's endpoint."""

import time
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.routing import Route

from shoal.agent.metrics import node_metrics
from shoal.agent.status_app import status_app
from shoal.state.live import NodeLive
from shoal.state.status import NodeState, NodeStatus


def agent_app(
    status: Callable[[], NodeStatus],
    more: Sequence[Route] = (),
    live: Callable[[], Awaitable[NodeLive]] | None = None,
) -> Starlette:
    """The application; ``status`` is asked for every answer, ``live`` for the metrics, where there is more to tell."""

    async def ask() -> NodeStatus:
        return status()

    async def metrics() -> Sequence[Metric]:
        return tuple(node_metrics(await live() if live else NodeLive(node=status(), at=time.time())))

    def fault() -> str:
        now = status()
        return now.detail or "gave up" if now.state is NodeState.FAILED else ""

    return status_app(ask, lambda now: now.state is NodeState.UP, metrics, fault, more)
