"""What moves: the documents at `/live`, and the metrics for Prometheus."""

import re
from collections.abc import Iterable

from prometheus_client.core import Metric
from pydantic import BaseModel

from pages.markdown import code, page, table
from pages.status import field_table
from shoal.agent.metrics import node_metrics
from shoal.engine.metrics import engine_metrics
from shoal.state import live
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

PARTS: tuple[type[BaseModel], ...] = (
    live.NodeLive,
    live.GpuLive,
    live.HcaLive,
    live.FindingLive,
    live.HeartbeatLive,
    live.EngineLive,
    live.ServingLive,
)


def live_page() -> str:
    """Both documents, field by field."""
    names = {part.__name__.lower() for part in PARTS}
    tables = (f"## {part.__name__}\n\n{field_table(part)}" for part in PARTS)
    return page(
        "Live documents",
        "Each agent answers `/live` with a [NodeLive](#nodelive), the supervisor with an [EngineLive](#enginelive). "
        "Totals only grow; who has two readings makes the rate. `null` means that the machine does not tell.\n\n"
        "The agent reads when somebody asks: HCAs at most once a second, GPUs at most every five. A driver that hangs "
        "holds no answer: after a second, what was read last is told.\n",
        *(re.sub(r"\(#(\w+)\)", lambda link: _link(link[1], names), text) for text in tables),
    )


def _link(anchor: str, here: set[str]) -> str:
    return f"(#{anchor})" if anchor in here else f"(status.md#{anchor})"


def metrics_page() -> str:
    """Every metric, as agent and supervisor name them."""
    node = NodeStatus(name="", role="head", address="", state=NodeState.UP)
    engine = EngineStatus(state=EngineState.READY, model="")
    return page(
        "Metrics",
        "For Prometheus, without a key: `/metrics` of each agent (port 8700) and of the supervisor (port 8701). "
        "A scrape asks the engine for nothing. What a machine does not tell is left out.\n\n"
        "vLLM has its own at `/metrics` of the API, with the API key.\n",
        f"## Agent\n\n{_table(node_metrics(live.NodeLive(node=node, at=0)))}",
        f"## Supervisor\n\n{_table(engine_metrics(live.EngineLive(engine=engine, at=0)))}",
    )


def _table(metrics: Iterable[Metric]) -> str:
    # A family without samples tells its labels nowhere else.
    labels = ((one, getattr(one, "_labelnames", ())) for one in metrics)
    rows = ((code(_name(one)), one.type, ", ".join(map(code, names)), one.documentation) for one, names in labels)
    return table(("metric", "type", "labels", "meaning"), rows)


def _name(metric: Metric) -> str:
    return metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
