"""What a fabric plan consists of."""

from dataclasses import dataclass, field
from typing import Literal

from shoal.nccl.variables import Version

# single: one node. pair: two nodes. switch: every rail reaches every node. rail-only: the same, and no rail reaches
# another. ring: direct cables from neighbour to neighbour. partial: some nodes share no rail. none: no RDMA.
Topology = Literal["single", "pair", "switch", "rail-only", "ring", "partial", "none"]
Confidence = Literal["high", "medium", "low"]
Port = tuple[str, int]


@dataclass(frozen=True)
class HcaPort:
    """One port of one HCA. ``gid_index`` is the slot that NCCL uses in the environment in force.

    ``usable`` says whether the plan may use it, ``chosen`` whether it does; None is "not known" in every field.
    """

    device: str
    port: int
    state: str | None
    link_layer: str | None
    rate_gbps: float | None
    netdev: str | None
    mtu: int | None
    ipv4: str | None
    gid_index: int | None
    gid_type: str | None
    usable: bool | None
    why: str
    chosen: bool = False


@dataclass(frozen=True)
class FabricSetting:
    """One variable for one node; ``evidence`` is the path or fact that it follows from, ``undo`` takes it back."""

    name: str
    value: str
    reason: str
    evidence: str
    confidence: Confidence
    undo: str


@dataclass(frozen=True)
class Rail:
    """Ports that can reach each other; by node number. ``assumed``: the prefix length is not known, /24 was taken."""

    subnets: tuple[str, ...]
    members: tuple[tuple[int, Port], ...]
    assumed: bool = False

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes that it joins."""
        return frozenset(node for node, _ in self.members)


@dataclass(frozen=True)
class NodeFabric:
    """One node's part. ``notes`` say what is worth knowing and needs no setting."""

    name: str
    hcas: tuple[HcaPort, ...]
    settings: tuple[FabricSetting, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fabric:
    """The plan for all nodes. ``order``: the nodes from cable to cable, where the fabric is a ring."""

    nccl: Version
    topology: Topology
    nodes: tuple[NodeFabric, ...]
    rails: tuple[Rail, ...] = ()
    order: tuple[str, ...] = field(default=())
