"""The agent's metrics, from the same document as ``/live``. Names and units by Prometheus' conventions."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from shoal.agent.stages import Stage
from shoal.state.live import GpuLive, HcaLive, NodeLive
from shoal.state.status import NodeState, NodeStatus, Versions

GPU = ("node", "gpu", "uuid")
PORT = ("node", "device", "port")
Row = tuple[tuple[str, ...], float | None]


def node_metrics(live: NodeLive) -> Iterator[Metric]:
    """All metrics of a node."""
    yield from _node(live.node)
    yield from _seen(live)
    yield from _gpus(live.node.name, live.gpus)
    yield from _hcas(live.node.name, live.hcas)


def build_info(versions: Versions | None, **labels: str) -> Metric:
    """``shoal_build_info``: what runs here, in labels."""
    known = versions.model_dump() if versions else {}
    words = {name: value for name, value in known.items() if value}
    return InfoMetricFamily("shoal_build", "Versions of what runs here", {**labels, **words})


def gauge(name: str, text: str, labels: Iterable[str], rows: Iterable[Row]) -> Metric:
    """A gauge with a sample for each row whose value is known."""
    family = GaugeMetricFamily(name, text, labels=tuple(labels))
    for values, value in rows:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def counter(name: str, text: str, labels: Iterable[str], rows: Iterable[Row]) -> Metric:
    """A counter, likewise; ``_total`` is added to its name."""
    family = CounterMetricFamily(name, text, labels=tuple(labels))
    for values, value in rows:
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _node(node: NodeStatus) -> Iterator[Metric]:
    me = (node.name,)
    up = float(node.state is NodeState.UP)
    yield build_info(node.versions, node=node.name, role=node.role)
    yield gauge("shoal_node_up", "1 while the node is joined and verified", ("node", "role"), [((*me, node.role), up)])
    stages = [((*me, stage.value), float(stage.value == node.stage)) for stage in Stage]
    yield gauge("shoal_node_stage", "1 for the stage that the agent is in", ("node", "stage"), stages)
    yield gauge("shoal_node_restarts", "Ray restarts in the last ten minutes", ("node",), [(me, node.restarts)])
    yield gauge("shoal_node_gpus", "GPUs offered to Ray", ("node",), [(me, node.gpus)])


def _seen(live: NodeLive) -> Iterator[Metric]:
    me = live.node.name
    counted = Counter(one.severity for one in live.findings)
    severities = ("fatal", "error", "warning", "info")
    yield gauge(
        "shoal_node_findings",
        "Findings of the agent's checks at its start that are not as they should be",
        ("node", "severity"),
        [((me, severity), counted[severity]) for severity in severities],
    )
    yield gauge(
        "shoal_heartbeat_age_seconds",
        "Seconds since another agent was heard",
        ("node", "peer"),
        [((me, beat.name), beat.age_s) for beat in live.heartbeats],
    )


def _gpus(node: str, gpus: tuple[GpuLive, ...]) -> Iterator[Metric]:
    def rows(field: str) -> list[Row]:
        return [((node, str(gpu.index), gpu.uuid), getattr(gpu, field)) for gpu in gpus]

    yield gauge("shoal_gpu_utilization_ratio", "Share of time in which it computed", GPU, rows("utilisation"))
    yield gauge("shoal_gpu_memory_used_bytes", "Memory in use", GPU, rows("memory_used_bytes"))
    yield gauge("shoal_gpu_memory_size_bytes", "Memory that it has", GPU, rows("memory_total_bytes"))
    yield gauge("shoal_gpu_temperature_celsius", "Temperature", GPU, rows("temperature_celsius"))
    yield gauge("shoal_gpu_power_watts", "Power draw", GPU, rows("power_watts"))


def _hcas(node: str, hcas: tuple[HcaLive, ...]) -> Iterator[Metric]:
    def at(hca: HcaLive) -> tuple[str, ...]:
        return node, hca.device, str(hca.port)

    active = [((*at(hca), hca.netdev, hca.link_layer), float(hca.state == "ACTIVE")) for hca in hcas]
    yield gauge("shoal_hca_port_active", "1 while the port is ACTIVE", (*PORT, "netdev", "link_layer"), active)
    speed = [(at(hca), None if hca.rate_gbps is None else hca.rate_gbps * 1e9 / 8) for hca in hcas]
    yield gauge("shoal_hca_link_rate_bytes_per_second", "What the link can carry one way", PORT, speed)
    for way, field in (("received", "received_bytes_total"), ("sent", "sent_bytes_total")):
        rows = [(at(hca), getattr(hca, field)) for hca in hcas]
        yield counter(f"shoal_hca_{way}_bytes", f"RDMA bytes {way} by the port", PORT, rows)
    errors = [((*at(hca), name), float(value)) for hca in hcas for name, value in hca.errors.items()]
    yield counter("shoal_hca_errors", "Error counters of the port, since boot", (*PORT, "counter"), errors)
