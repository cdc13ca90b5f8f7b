"""What known hardware reaches, each row with its source: the bound of a verdict where a row fits, for others the
link's rate times a share. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PLAYBOOKS = "NVIDIA/dgx-spark-playbooks"
AZURE = "Azure/azurehpc-health-checks"
SICHEK = "scitix/sichek"
IMBUE = "imbue-ai/cluster-health"
SPARK = "GB10"
USUAL = 0.75  # of the link's rate, where no row fits


@dataclass(frozen=True)
class Link:
    """What one HCA writes to another: at least this many Gb/s at this rate; ``gpu`` is part of the GPU's name."""

    rate_gbps: float
    layer: str  # InfiniBand, Ethernet, or empty for both
    gpu: str
    at_least: float
    source: str


@dataclass(frozen=True)
class Collective:
    """What a collective reaches: busbw in GB/s, for so many nodes and ranks; 0 is any number."""

    name: str
    gpu: str
    nodes: tuple[int, int]  # from, to
    ranks: int
    at_least: float
    source: str


# In the order in which they are tried. A Spark's port says 200 Gb/s, and hangs on PCIe lanes for half of that.
LINKS = (
    Link(200, "", SPARK, 92, f"{PLAYBOOKS}: 92.57 and 97.28 Gb/s on the two functions of a port"),
    Link(400, "InfiniBand", "", 380, f"{AZURE}: 380 of 400 Gb/s"),
    Link(400, "", "", 360, f"{SICHEK}: 360 of 400 Gb/s"),
    Link(200, "", "", 175, f"{SICHEK}: 175 of 200 Gb/s"),
)
LATENCY_US = 4.2
LATENCY_SOURCE = f"{IMBUE}: 4.2 us"
COLLECTIVES = (
    Collective("all_gather", SPARK, (2, 2), 2, 21.875, f"{PLAYBOOKS}: a pair"),
    Collective("all_gather", SPARK, (3, 99), 0, 10, f"{PLAYBOOKS}: a ring of cables"),
    Collective("all_reduce", "H100", (1, 1), 8, 460, f"{AZURE}: eight H100 of one host"),
)


@dataclass(frozen=True)
class Bound:
    """The least that is expected, in the unit of what is measured, and where that is from."""

    at_least: float
    source: str


def link(rate_gbps: float, layer: str, gpus: Iterable[str]) -> Bound:
    """What an HCA of that rate is to write in Gb/s, in a node with these GPUs."""
    names = " ".join(gpus)
    for row in LINKS:
        if row.rate_gbps == rate_gbps and row.layer in {"", layer} and row.gpu in names:
            return Bound(row.at_least, row.source)
    return Bound(rate_gbps * USUAL, f"{USUAL:.0%} of the link's rate are usual")


def collective(names: Sequence[str], gpus: Iterable[str], nodes: int, ranks: int) -> tuple[str, Bound] | None:
    """One of the measured collectives with its bound; None where no row fits, or the GPUs are of several kinds."""
    kinds = set(gpus)
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    for row in COLLECTIVES:
        fits = row.gpu in kind and row.nodes[0] <= nodes <= row.nodes[1] and row.ranks in {0, ranks}
        if fits and row.name in names:
            return row.name, Bound(row.at_least, row.source)
    return None
