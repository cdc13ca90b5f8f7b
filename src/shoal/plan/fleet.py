"""The plan of a cluster on many hosts: for each node its files, environment, ports and commands, with reasons. Pure.

It is the very object that ``shoal up`` applies and ``shoal plan --json`` prints. Secrets stand in it as references:
where the operator keeps them, and where they lie on the host; never as values. Each release on a host holds the plan
that it came from, so that ``shoal rollback`` applies an old one as it was.
"""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shoal.plan.node import Setting

Runtime = Literal["compose", "process"]
UnitName = Literal["agent", "engine"]
SHORT = 12  # letters of a release's name
PYZ, ENV, COMPOSE, MODELS, PLAN = "shoal.pyz", ".env", "compose.yaml", "models.yaml", "plan.json"
CURRENT, STATE, LOGS = "current", "state", "logs"
GENERATED = "generated"  # a secret that shoal makes, and keeps in the operator's own folder of the cluster
API_KEY, RAY_TOKEN = "api.key", "ray.token"
# The services of compose.yaml, and the names of their containers.
SERVICES = {"agent": "ray-node", "engine": "vllm"}


class Part(BaseModel):
    """A part of the plan: nothing unknown in it, and nothing changes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedFile(Part):
    """A file of a release; ``text`` is None for one of bytes, which its digest names; ``link`` is a link's target."""

    path: str
    mode: int
    why: str
    text: str | None = None
    sha256: str = ""
    link: str = ""


class PlannedSecret(Part):
    """A secret by reference: its path below the root on the host, and where the operator has it.

    ``source`` is ``generated:NAME``, ``env:VARIABLE`` or ``file:PATH``.
    """

    path: str
    source: str
    why: str


class PlannedPort(Part):
    """A port that will be listened on."""

    address: str
    port: int
    what: str


class UnitPlan(Part):
    """A program of a node: the agent, or on the head the engine's supervisor.

    ``digest`` stands for all that it is started with: as long as it stays the same, nothing is started again.
    """

    name: UnitName
    digest: str
    start: tuple[str, ...]
    stop: tuple[str, ...]
    environment: tuple[Setting, ...] = ()  # what it has beyond the node's
    log: str


class NodeDeployment(Part):
    """One node: who it is, what lies there, what runs there."""

    name: str
    role: Literal["head", "worker"]
    ssh: str
    address: str
    address_why: str
    gpus: int
    root: str
    temp: str  # a folder of short-lived things: sockets, sessions
    files: tuple[PlannedFile, ...]
    secrets: tuple[PlannedSecret, ...]
    environment: tuple[Setting, ...]
    ports: tuple[PlannedPort, ...]
    units: tuple[UnitPlan, ...]
    boot: str = ""  # what the host's cron starts at a boot, as a line of a shell; Docker needs none

    @property
    def commands(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """By unit: the commands that start and stop it, as argv."""
        return {unit.name: {"start": unit.start, "stop": unit.stop} for unit in self.units}

    def unit(self, name: str) -> UnitPlan | None:
        """The unit of that name."""
        return next((unit for unit in self.units if unit.name == name), None)


class FleetPlan(Part):
    """All of it. ``digest`` names the release: the same on every host."""

    cluster: str
    runtime: Runtime
    digest: str
    image: str
    python: str
    model: str
    endpoint: str
    serve_port: int
    agent_port: int
    parallel: str
    nodes: tuple[NodeDeployment, ...]
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> NodeDeployment:
        """The node that runs the GCS and the supervisor."""
        return next(node for node in self.nodes if node.role == "head")

    @property
    def workers(self) -> tuple[NodeDeployment, ...]:
        """All other nodes."""
        return tuple(node for node in self.nodes if node.role == "worker")

    def node(self, name: str) -> NodeDeployment | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def release(self, node: NodeDeployment) -> str:
        """The release's folder on a node."""
        return f"{node.root}/releases/{self.digest}"


def root_of(home: str, cluster: str) -> str:
    """The folder of a cluster on a host, whoever's home it is."""
    return f"{home}/.local/share/shoal/{cluster}"


def digest_of(*things: object) -> str:
    """A short name for these values: the same for the same ones."""
    text = json.dumps(things, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]
