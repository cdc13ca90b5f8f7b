"""Plans: what will be started, with which environment, and why. Built first, shown or carried out afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shoal.plan.ports import NodePorts
from shoal.state.status import ExecutorKind


@dataclass(frozen=True)
class Setting:
    """One variable with its reason."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class NodePlan:
    """One node: who it is, its ports, and the environment its agent is configured by."""

    name: str
    role: Literal["head", "worker"]
    address: str
    gpus: int
    ports: NodePorts
    agent_port: int
    settings: tuple[Setting, ...]

    @property
    def env(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {setting.name: setting.value for setting in self.settings}

    @property
    def agent_url(self) -> str:
        """Where the node's agent answers."""
        return f"http://{self.address}:{self.agent_port}"


@dataclass(frozen=True)
class EnginePlan:
    """The engine: vLLM's arguments and environment, with the supervisor's own settings."""

    model: str
    api_host: str
    api_port: int
    serve_port: int
    arguments: tuple[str, ...]
    engine_env: Mapping[str, str]
    settings: tuple[Setting, ...]
    reasons: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        """The supervisor's settings as environment variables."""
        return {setting.name: setting.value for setting in self.settings}

    @property
    def endpoint(self) -> str:
        """Base URL of the OpenAI-compatible API."""
        return f"http://{self.api_host}:{self.api_port}/v1"


@dataclass(frozen=True)
class ClusterPlan:
    """All of it."""

    name: str
    nodes: tuple[NodePlan, ...]
    engine: EnginePlan
    executor: ExecutorKind = ExecutorKind.RAY

    @property
    def head(self) -> NodePlan:
        """The node that runs the GCS."""
        return next(node for node in self.nodes if node.role == "head")

    def listening(self) -> list[tuple[str, int, str]]:
        """Address, port and purpose of all that will listen at a known port."""
        out = []
        for node in self.nodes:
            ports = self._engine_ports(node) | {"agent": node.agent_port}
            out += [(node.address, port, f"{name} of {node.name}") for name, port in ports.items()]
        head = self.head.address
        return [
            *out,
            (self.engine.api_host, self.engine.api_port, "the API"),
            (head, self.engine.serve_port, "supervisor"),
        ]

    def _engine_ports(self, node: NodePlan) -> dict[str, int]:
        head = node.role == "head"
        if self.executor is ExecutorKind.RAY:
            return node.ports.named(head=head)
        return {"torch's store": node.ports.gcs} if head else {}
