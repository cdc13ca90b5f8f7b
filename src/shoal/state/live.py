"""What moves: the numbers behind the status page, ``shoal top`` and the metrics, as each agent reads them at ``/live``.

Totals only ever grow, as the machine counts them; a rate is made by whoever has two readings. ``None`` means that the
machine does not tell.
"""

from typing import Literal

from pydantic import Field

from shoal.state.status import ClusterStatus, Document, EngineStatus, NodeStatus


class GpuLive(Document):
    """One GPU, at this moment."""

    index: int
    name: str = ""
    uuid: str = ""
    utilisation: float | None = Field(None, description="share of the last second in which it computed, 0 to 1")
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


class HcaLive(Document):
    """One port of an HCA, at this moment."""

    device: str
    port: int
    netdev: str = ""
    link_layer: str = Field("", description="`InfiniBand` or `Ethernet`")
    state: str = Field("", description="the port's state, such as `ACTIVE`")
    rate_gbps: float | None = Field(None, description="the link's rate")
    received_bytes_total: int | None = None
    sent_bytes_total: int | None = None
    estimate: bool = Field(default=False, description="bytes are packets times the MTU: at most this many")
    errors: dict[str, int] = Field(default_factory=dict, description="error counters by name: totals since boot")


class FindingLive(Document):
    """One finding of the agent's own checks, as it looked when it started."""

    id: str
    status: Literal["WARN", "FAIL"]
    severity: str = Field("", description="`fatal`, `error`, `warning` or `info`: what a failure means")
    title: str
    evidence: str = Field("", description="what was read; empty for those who do not show the cluster's key")
    fix: str = ""


class HeartbeatLive(Document):
    """How long ago another agent was heard."""

    name: str
    address: str
    age_s: float | None = None


class NodeLive(Document):
    """One node: who it is, and what its agent read last."""

    node: NodeStatus
    at: float = Field(description="when it was read: seconds since the epoch, by the node's clock")
    gpus: tuple[GpuLive, ...] = ()
    hcas: tuple[HcaLive, ...] = ()
    findings: tuple[FindingLive, ...] = ()
    heartbeats: tuple[HeartbeatLive, ...] = ()


class ServingLive(Document):
    """What the engine does for its users, from vLLM's own metrics over the last interval."""

    tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    ttft_p50_s: float | None = Field(None, description="time to first token, median")
    ttft_p95_s: float | None = None
    itl_p50_s: float | None = Field(None, description="inter-token latency, median")
    itl_p95_s: float | None = None
    kv_cache_use: float | None = Field(None, description="share of the KV cache in use, 0 to 1")
    requests_running: int | None = None
    requests_waiting: int | None = None


class EngineLive(Document):
    """The engine, as its supervisor tells at its own ``/live``."""

    engine: EngineStatus
    at: float = Field(description="when it was read: seconds since the epoch, by the head's clock")
    serving: ServingLive | None = Field(None, description="null while it does not serve")
    endpoint: str = Field("", description="base URL of the API; empty until the model is known")
    expected: dict[str, int] = Field(default_factory=dict, description="GPUs by address of those nodes")
    expected_nodes: int = Field(0, description="nodes that the gate waits for")
    present_nodes: int = Field(0, description="those of them that are as expected")
    probe_s: float | None = Field(None, description="how long the last request for one token took")
    probes_total: int = 0
    probes_failed_total: int = 0
    wedged: bool = Field(default=False, description="no token on request, and no counter of vLLM's moves")
    breaker_open: bool = Field(default=False, description="it gave up: somebody must act")


class RailLive(Document):
    """What one port of one HCA carried in the last interval."""

    node: str
    device: str
    port: int
    received_gbps: float | None = None
    sent_gbps: float | None = None
    errors_moved: dict[str, int] = Field(default_factory=dict, description="error counters that grew, by how much")


class EventLive(Document):
    """One line of a journal."""

    at: float
    node: str = ""
    kind: str
    text: str
    level: str = "info"


class Verdict(Document):
    """The cluster in one sentence."""

    level: Literal["good", "busy", "warn", "bad"]
    words: str
    fix: str = Field("", description="the command that mends it, or that tells more")


class ClusterLive(Document):
    """All of it, as the head's agent puts it together."""

    at: float
    status: ClusterStatus
    nodes: tuple[NodeLive, ...] = ()
    rails: tuple[RailLive, ...] = ()
    serving: ServingLive | None = None
    events: tuple[EventLive, ...] = ()
    verdict: Verdict | None = None
