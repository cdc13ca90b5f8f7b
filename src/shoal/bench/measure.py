"""What was measured, as values: bandwidths as nccl-tests define them, pairs, stragglers, a judgement. Pure.

algbw is size / time. busbw multiplies it by what an ideal algorithm moves over each link, so that it can be compared
with the link's rate whatever the number of ranks (nccl-tests, doc/PERFORMANCE.md): all_reduce 2 (n - 1) / n, all_gather
and reduce_scatter (n - 1) / n of the whole buffer, send_recv 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from shoal.bench import references

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "send_recv")
# How often each byte crosses a rank's link: this many times (n - 1) / n of it; send_recv sends each byte once.
SHARES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
SMALLEST, LARGEST = 1 << 10, 1 << 30
STRAGGLER = 0.3  # NCCL's own diagnostics use the same share off the median
GOOD, POOR = 0.75, 0.5  # of the link's rate
GIGA = 1e9


@dataclass(frozen=True)
class Row:
    """One collective at one size: bytes, seconds of one operation, GB/s (10^9 bytes)."""

    name: str
    size: int
    seconds: float
    algbw: float
    busbw: float


@dataclass(frozen=True)
class Pair:
    """One direction between two ranks, in GB/s."""

    source: int
    target: int
    gbps: float


@dataclass(frozen=True)
class Rank:
    """Where a rank ran."""

    address: str
    torch: str
    interface: str
    hcas: tuple[str, ...]
    rdma_gbps: float = 0.0  # of all active HCAs of its node together
    interface_gbps: float = 0.0
    gpu: str = ""  # the model of its node's GPUs, as the driver calls it


@dataclass(frozen=True)
class Measured:
    """All of a run."""

    backend: str
    ranks: tuple[Rank, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    unsupported: tuple[tuple[str, str], ...] = ()


def sizes(largest: int, smallest: int = SMALLEST) -> list[int]:
    """Powers of four from the smallest to the largest, the largest itself included. Bytes, multiples of 4."""
    out, size = [], smallest
    while size < largest:
        out.append(size)
        size *= 4
    return [*out, largest - largest % 4]


def bus_bandwidth(name: str, size: int, seconds: float, ranks: int) -> float:
    """busbw in GB/s."""
    factor = SHARES[name] * (ranks - 1) / ranks if name in SHARES else 1.0
    return size / seconds / GIGA * factor


def measured(documents: Iterable[dict[str, Any]]) -> Measured:
    """The driver's documents as values; documents of other kinds are passed over."""
    backend, ranks = "", tuple[Rank, ...]()
    rows: list[Row] = []
    pairs: list[Pair] = []
    unsupported: list[tuple[str, str]] = []
    for item in documents:
        if item["kind"] == "look":
            backend = item["backend"]
            ranks = tuple(_rank(one) for one in item["ranks"])
        elif item["kind"] == "collective" and "unsupported" in item:
            unsupported.append((item["name"], item["unsupported"]))
        elif item["kind"] == "collective":
            rows.append(_row(item, len(ranks)))
        elif item["kind"] == "pair":
            pairs.append(Pair(item["source"], item["target"], item["size"] / item["seconds"] / GIGA))
    return Measured(backend, ranks, tuple(rows), tuple(pairs), tuple(unsupported))


def _rank(item: dict[str, Any]) -> Rank:
    rates = item.get("rdma_gbps", 0.0), item.get("interface_gbps", 0.0)
    return Rank(item["address"], item["torch"], item["interface"], tuple(item["hcas"]), *rates, item.get("gpu", ""))


def link_rate(found: Measured) -> float | None:
    """The rate of the slowest node's links in Gb/s: its HCAs under NCCL, its interface under Gloo; None: not known.

    Ranks of one node talk without a link, and are not compared with one.
    """
    if len({rank.address for rank in found.ranks}) < 2:
        return None
    rates = [
        rank.rdma_gbps or rank.interface_gbps if found.backend == "nccl" else rank.interface_gbps
        for rank in found.ranks
    ]
    return min(rates, default=0.0) or None


def _row(item: dict[str, Any], ranks: int) -> Row:
    name, size, seconds = item["name"], item["size"], item["seconds"]
    return Row(name, size, seconds, size / seconds / GIGA, bus_bandwidth(name, size, seconds, ranks))


def peaks(rows: Sequence[Row]) -> dict[str, Row]:
    """The row with the highest busbw of each collective."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.name not in best or row.busbw > best[row.name].busbw:
            best[row.name] = row
    return best


@dataclass(frozen=True)
class Straggler:
    """A rank whose pairs are slow: its own median and that of all, in GB/s."""

    rank: int
    address: str
    gbps: float
    median: float


def stragglers(found: Measured) -> tuple[Straggler, ...]:
    """Ranks whose pairs, both ways, are more than 30 % below the median of all pairs.

    With two ranks there is nobody to compare with.
    """
    if len(found.ranks) < 3 or not found.pairs:
        return ()
    middle = median(pair.gbps for pair in found.pairs)
    out = []
    for rank, where in enumerate(found.ranks):
        own = median(pair.gbps for pair in found.pairs if rank in {pair.source, pair.target})
        if own < middle * (1 - STRAGGLER):
            out.append(Straggler(rank, where.address, own, middle))
    return tuple(out)


@dataclass(frozen=True)
class Verdict:
    """Whether the fabric does what it should, in a sentence; ``good`` None where there is nothing to compare with."""

    words: str
    good: bool | None = None


def verdict(found: Measured, link_gbps: float | None) -> Verdict:
    """The best busbw against what known hardware reaches, else against the link's rate in Gb/s, and stragglers."""
    best = max(found.rows, key=lambda row: row.busbw, default=None)
    if best is None:
        return Verdict("nothing was measured", good=False)
    slow = stragglers(found)
    if slow:
        who = ", ".join(f"rank {item.rank} ({item.address}) {item.gbps:.2f} GB/s" for item in slow)
        return Verdict(f"slower than the others: {who}, median {slow[0].median:.2f} GB/s", good=False)
    if known := _known(found):
        return known
    words = f"{best.name} reaches {best.busbw:.2f} GB/s (busbw)"
    if not link_gbps:
        return Verdict(f"{words}; no link rate is known to compare with")
    share = best.busbw * 8 / link_gbps
    said = f"{words}, {share:.0%} of the link's {link_gbps:g} Gb/s"
    if share >= GOOD:
        return Verdict(said, good=True)
    return Verdict(f"{said}: {'below' if share >= POOR else 'far below'} the {GOOD:.0%} that are usual", good=False)


def _known(found: Measured) -> Verdict | None:
    """The verdict where the catalogue has a row for this hardware."""
    best, nodes = peaks(found.rows), len({rank.address for rank in found.ranks})
    gpus = (rank.gpu for rank in found.ranks)
    row = references.collective(tuple(best), gpus, nodes, len(found.ranks)) if found.backend == "nccl" else None
    if row is None:
        return None
    name, bound = row
    said = f"{name} reaches {best[name].busbw:.2f} GB/s (busbw)"
    if best[name].busbw >= bound.at_least:
        return Verdict(f"{said}; {bound.at_least:g} are expected ({bound.source})", good=True)
    return Verdict(f"{said}: below the {bound.at_least:g} that are expected ({bound.source})", good=False)


@dataclass(frozen=True)
class Drift:
    """A collective at a size, before and now, in GB/s."""

    name: str
    size: int
    before: float
    now: float

    @property
    def change(self) -> float:
        """Now against before: -0.2 is a fifth slower."""
        return self.now / self.before - 1 if self.before else 0.0


def drifts(before: Sequence[Row], now: Sequence[Row], threshold: float = 0.1) -> tuple[Drift, ...]:
    """Where busbw moved by more than ``threshold``; sizes that only one run has are passed over."""
    old = {(row.name, row.size): row.busbw for row in before}
    both = [Drift(row.name, row.size, old[row.name, row.size], row.busbw) for row in now if (row.name, row.size) in old]
    return tuple(item for item in both if abs(item.change) > threshold)
