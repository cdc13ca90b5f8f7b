"""All facts of one node, and of several. Built from a snapshot; judged by ``checks``, decided on by ``plan``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.facts.container import ContainerFacts, DockerFacts
from shoal.facts.gpu import GpuFacts
from shoal.facts.machine import MachineFacts
from shoal.facts.net import NetFacts
from shoal.facts.rdma import RdmaFacts
from shoal.facts.stack import StackFacts


@dataclass(frozen=True)
class NodeFacts:
    """One node. ``env`` is the environment that the node's processes get, secrets masked; None where nobody looked.

    ``before`` is the same node read earlier: counters tell something by what they grew since then.
    """

    name: str
    machine: MachineFacts = field(default_factory=MachineFacts)
    gpu: GpuFacts = field(default_factory=GpuFacts)
    rdma: RdmaFacts = field(default_factory=RdmaFacts)
    net: NetFacts = field(default_factory=NetFacts)
    container: ContainerFacts = field(default_factory=ContainerFacts)
    docker: DockerFacts = field(default_factory=DockerFacts)
    stack: StackFacts = field(default_factory=StackFacts)
    env: Mapping[str, str] | None = None
    before: "NodeFacts | None" = None


@dataclass(frozen=True)
class Ping:
    """A DF ping over one rail: from an address of one node to an address of another; sizes in bytes."""

    source: str  # node name
    target: str
    source_ip: str
    target_ip: str
    device: str
    mtu: int
    answered: bool
    small_answered: bool | None = None  # whether a small ping got through


@dataclass(frozen=True)
class Fleet:
    """Several nodes, judged together. ``pings`` None where none were sent (a capture)."""

    nodes: tuple[NodeFacts, ...]
    pings: tuple[Ping, ...] | None = None
    unreachable: Mapping[str, str] = field(default_factory=dict)  # node -> why it could not be asked
