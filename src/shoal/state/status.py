"""What is known of a cluster at one moment: the document behind ``shoal status --json``.

Version :data:`SCHEMA_VERSION` is part of every document. Adding an optional field keeps the version; removing a field
or changing a meaning raises it.
"""

from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1


class NodeState(StrEnum):
    """Where a node stands, as its agent says; ``suspect`` and ``lost`` are also said of an agent that is silent."""

    STARTING = "starting"
    WAITING = "waiting"
    JOINING = "joining"
    UP = "up"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    SUSPECT = "suspect"
    LOST = "lost"


class EngineState(StrEnum):
    """Where the engine stands. Only ``ready`` means that a token can be produced now."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class ClusterState(StrEnum):
    """Where the cluster stands as a whole."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"


class ExecutorKind(StrEnum):
    """What the engine's ranks on several nodes are held by: Ray, or vLLM's own processes."""

    RAY = "ray"
    MP = "mp"


class Transport(StrEnum):
    """What the engine's traffic between nodes goes over."""

    RDMA = "rdma"
    TCP = "tcp"
    LOCAL = "local"
    UNKNOWN = "unknown"


class Document(BaseModel):
    """Base of all parts: immutable; a reader passes over fields that a newer writer added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Versions(Document):
    """Versions that must agree across nodes; None where it is not installed."""

    shoal: str
    python: str
    ray: str | None = None
    vllm: str | None = None
    torch: str | None = None
    nccl: str | None = Field(None, description="NCCL's version; None on CPU builds of torch")


class NodeStatus(Document):
    """One node, as its agent reports it at ``/status``."""

    name: str
    role: Literal["head", "worker"]
    address: str = Field(description="the node's fabric address, also its Ray node address")
    state: NodeState
    stage: str = Field("", description="the agent's stage, such as WAIT_HEAD")
    detail: str = Field("", description="one sentence: what it waits for, or why it failed")
    gpus: int = Field(0, description="GPUs offered to the engine; logical ones where there is no GPU")
    executor: ExecutorKind = Field(ExecutorKind.RAY, description="what holds the engine's ranks on this node")
    versions: Versions | None = None
    ray_node_id: str | None = None
    ray_cluster_id: str | None = Field(
        None, description="id of the Ray cluster it is in; a head that starts again makes a new one"
    )
    stay_id: str | None = Field(None, description="without Ray: id of this stay in the cluster, new at each join")
    rank_ended: str = Field("", description="without Ray: why the engine's process here ended, unasked")
    pid: int | None = Field(None, description="process id of the agent")
    restarts: int = 0

    @property
    def member(self) -> str | None:
        """What changes whenever the node has left the cluster and joined again; None while it is not in it."""
        return self.ray_node_id or self.stay_id


class TransportStatus(Document):
    """What the engine's traffic goes over, as its supervisor judges from NCCL's words and the HCAs' byte counters."""

    kind: Transport
    detail: str = Field("", description="one sentence: what shows it")
    degraded: bool = Field(default=False, description="true while it serves over TCP although RDMA was planned")


class EngineStatus(Document):
    """The engine, as its supervisor reports it at ``/status``."""

    state: EngineState
    model: str
    executor: ExecutorKind = Field(ExecutorKind.RAY, description="what holds its ranks")
    phase: str = Field("", description="the phase it is in: gate, placement, weights, compile, warm-up, first token")
    phases: dict[str, float] = Field(default_factory=dict, description="seconds spent in each phase of this start")
    last_token_age_s: float | None = Field(None, description="seconds since the last token; None before the first")
    detail: str = Field("", description="one sentence: what it waits for, or why it failed")
    restarts: int = 0
    last_fault: str = Field("", description="why the engine ended last; empty where it never did")
    incident: str = Field("", description="folder with the evidence of that, on the supervisor's host")
    pid: int | None = Field(None, description="process id of the API server")
    transport: TransportStatus | None = Field(None, description="what its traffic goes over; null until tokens come")

    @property
    def over_tcp(self) -> bool:
        """Whether it serves over TCP although RDMA was planned."""
        return self.transport is not None and self.transport.degraded


class ClusterStatus(Document):
    """The whole cluster."""

    schema_version: Literal[1] = SCHEMA_VERSION
    cluster: str = Field(description="the cluster's name; `local` for `shoal up --local`")
    state: ClusterState = Field(description="`ready` only while a token can be produced")
    endpoint: str | None = Field(None, description="base URL of the OpenAI-compatible API")
    api_key_file: str | None = Field(None, description="file that holds the API key")
    page: str | None = Field(None, description="URL of the status page, which wants the API key")
    nodes: tuple[NodeStatus, ...] = ()
    engine: EngineStatus | None = None

    @property
    def serves_over_tcp(self) -> bool:
        """Whether all is well but that it serves over TCP although RDMA was planned: no waiting mends that."""
        engine = self.engine
        if engine is None or not engine.over_tcp:
            return False
        return judge(self.nodes, engine.model_copy(update={"transport": None})) is ClusterState.READY


def judge(nodes: tuple[NodeStatus, ...], engine: EngineStatus | None) -> ClusterState:
    """The state of the whole from the states of its parts. Never ``ready`` unless every part says so.

    An engine that serves over TCP, although RDMA was planned, makes it degraded: tokens come, but slowly.
    """
    if engine is None:
        return ClusterState.DEGRADED if nodes else ClusterState.DOWN
    if engine.state in {EngineState.STOPPING, EngineState.STOPPED}:
        return ClusterState.STOPPING
    if engine.state is EngineState.FAILED or any(node.state is NodeState.FAILED for node in nodes):
        return ClusterState.FAILED
    if engine.state is EngineState.READY:
        whole = bool(nodes) and all(node.state is NodeState.UP for node in nodes)
        return ClusterState.READY if whole and not engine.over_tcp else ClusterState.DEGRADED
    starting = {EngineState.WAITING, EngineState.STARTING}
    if engine.state in starting and not any(node.state is NodeState.LOST for node in nodes):
        return ClusterState.STARTING
    return ClusterState.DEGRADED
