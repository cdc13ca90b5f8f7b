"""Is the traffic RDMA? Byte counters of every HCA before and after, and what NCCL says, judged. Pure.

With traffic of a known amount, in messages of at least 64 MiB, each planned HCA must carry its share. Of an engine's
own traffic only this is demanded: RDMA bytes moved at all when tokens did. Its messages are small and its channels few,
so an idle rail is normal there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shoal.bench.counters import Moved, NodeProof, Port, Process, between
from shoal.nccl.rank import is_rdma

Verdict = Literal["rdma", "partly", "tcp", "unknown", "nothing"]
MESSAGE = 64 << 20
ENOUGH = 0.9  # of the expected bytes: counters are read a moment before and after
SHARE = 0.75  # of an equal share; less is a finding
IDLE = 0.05
TOKEN_BYTES = 512  # the smallest model sends more from node to node for one token
# Words of a row.
CARRIED, LESS, UNUSED, MOVED = "carried its share", "less than its share", "idle", "moved"
UNREADABLE, RESET = "not readable", "its counter was reset meanwhile"


@dataclass(frozen=True)
class Traffic:
    """What was driven between the two looks: ``expected`` bytes through each node, or the ``tokens`` of an engine."""

    expected: int | None = None
    tokens: int = 0

    @property
    def floor(self) -> int:
        """Bytes that must at least have moved on each node."""
        return self.expected if self.expected is not None else max(1, self.tokens * TOKEN_BYTES)


@dataclass(frozen=True)
class Row:
    """One HCA of one node. ``share`` is of an equal one: 1.0 is exactly that."""

    node: str
    hca: str
    rail: str
    expected: int | None
    seen: int | None
    share: float | None
    estimate: bool
    verdict: str


@dataclass(frozen=True)
class NodeVerdict:
    """One node: bytes seen on its planned HCAs, and what its processes say."""

    name: str
    verdict: Verdict
    words: str
    seen: int | None
    transport: str
    gdr: bool | None


@dataclass(frozen=True)
class Proof:
    """The result."""

    verdict: Verdict
    words: str
    nodes: tuple[NodeVerdict, ...]
    rows: tuple[Row, ...]

    @property
    def proven(self) -> bool:
        """Whether it is proven that the traffic is RDMA."""
        return self.verdict == "rdma"


def nothing_to_prove(nodes: Sequence[NodeProof]) -> str:
    """Why there is no RDMA traffic to be proven; empty where it is planned."""
    if len(nodes) < 2:
        return "one node: its traffic crosses no network"
    if all(node.cpu for node in nodes):
        return "vLLM is a CPU build here: its ranks have no NCCL, and their tensors go over TCP, by Gloo"
    if off := next((f"{node.disabled} on {node.name}" for node in nodes if node.disabled), ""):
        return f"RDMA is turned off: {off}; traffic goes over TCP, as somebody wanted"
    if sum(bool(node.planned) for node in nodes) >= 2:
        return ""
    without = [node.name for node in nodes if not node.planned]
    return f"no RDMA device is active on {', '.join(without)}: traffic goes over TCP"


def judge(before: Sequence[NodeProof], after: Sequence[NodeProof], traffic: Traffic) -> Proof:
    """The verdict on all nodes. ``processes`` are those of ``after``: name the ones that count."""
    if why := nothing_to_prove(after):
        return Proof("nothing", why, (), ())
    earlier = {node.address: node for node in before}
    judged = [_node(earlier.get(node.address), node, traffic) for node in after]
    nodes = tuple(node for node, _ in judged)
    rows = tuple(row for _, rows in judged for row in rows)
    return Proof(*_whole(nodes, traffic), nodes, rows)


def _whole(nodes: Sequence[NodeVerdict], traffic: Traffic) -> tuple[Verdict, str]:
    worst: tuple[tuple[Verdict, str], ...] = (
        ("tcp", "serving over TCP, although RDMA is planned"),
        ("partly", "only partly over RDMA"),
        ("unknown", "not proven"),
    )
    for verdict, words in worst:
        bad: dict[str, list[str]] = {}
        for node in nodes:
            if node.verdict == verdict:
                bad.setdefault(node.words, []).append(node.name)
        if bad:
            told = [f"{', '.join(names)}: {why}" for why, names in bad.items()]
            return verdict, f"{words}: {'; '.join(told)}"
    what = "each HCA carried its share" if traffic.expected is not None else "RDMA bytes moved on every node"
    return "rdma", f"over RDMA: {what}"


def _node(before: NodeProof | None, now: NodeProof, traffic: Traffic) -> tuple[NodeVerdict, tuple[Row, ...]]:
    seen = _seen(before, now)
    known = [one.bytes for one in seen.values() if one.bytes is not None]
    total = sum(known) if known else None
    rows = tuple(_row(now, port, seen[port.name], total, traffic) for port in now.planned)
    verdict, words = _judged(now, rows, total, traffic)
    return NodeVerdict(now.name, verdict, words, total, transport(now.processes), gdr(now.processes)), rows


def _seen(before: NodeProof | None, now: NodeProof) -> dict[str, Moved]:
    """Bytes of each planned port: of sent and received the larger, so that traffic one way counts on both sides."""
    earlier = {port.name: port for port in before.ports} if before else {}
    ways = {port.name: between(earlier.get(port.name), port) for port in now.planned}
    return {name: max(both, key=lambda way: -1 if way.bytes is None else way.bytes) for name, both in ways.items()}


def _row(node: NodeProof, port: Port, seen: Moved, total: int | None, traffic: Traffic) -> Row:
    count = len(node.planned)
    expected = None if traffic.expected is None else traffic.expected // count
    share = None if seen.bytes is None or not total else seen.bytes * count / total
    enough = traffic.floor if expected is None else expected * SHARE
    words = UNREADABLE if seen.bytes is None else RESET if seen.at_least and seen.bytes < enough else ""
    words = words or _share_words(share or 0.0, traffic)
    return Row(node.name, port.name, port.rail, expected, seen.bytes, share, port.estimate, words)


def _share_words(share: float, traffic: Traffic) -> str:
    if share < IDLE:
        return UNUSED
    if traffic.expected is None:
        return MOVED
    return CARRIED if share >= SHARE else LESS


def _judged(node: NodeProof, rows: Sequence[Row], total: int | None, traffic: Traffic) -> tuple[Verdict, str]:
    if sockets := over_sockets(node.processes):
        return "tcp", sockets
    if not rows:
        return "tcp", "it has no RDMA device that NCCL would take, and the others have"
    if total is None:
        return "unknown", _would_tell(node, rows)
    names = ", ".join(row.hca for row in rows)
    if total < traffic.floor * (ENOUGH if traffic.expected is not None else 1):
        return _short(rows, total, traffic)
    if traffic.expected is None:
        return "rdma", f"{total:,} bytes moved on {names}"
    bad = [row for row in rows if row.verdict != CARRIED]
    if bad:
        words = "; ".join(f"{row.hca}: {row.verdict}" for row in bad)
        return ("unknown" if all(row.verdict in {RESET, UNREADABLE} for row in bad) else "partly"), words
    return "rdma", f"{total:,} bytes, shared equally by {names}"


def _short(rows: Sequence[Row], total: int, traffic: Traffic) -> tuple[Verdict, str]:
    """Less was seen than was driven."""
    names = ", ".join(row.hca for row in rows)
    untold = [f"{row.hca}: {row.verdict}" for row in rows if row.verdict in {RESET, UNREADABLE}]
    if untold:
        return "unknown", "; ".join(untold)
    if traffic.expected is None or total < traffic.expected * IDLE:
        return "tcp", f"no RDMA traffic on {names}: {total:,} bytes of at least {traffic.floor:,}"
    return "partly", f"{total:,} of {traffic.floor:,} bytes went over {names}"


def _would_tell(node: NodeProof, rows: Sequence[Row]) -> str:
    names = ", ".join(row.hca for row in rows)
    said = transport(node.processes)
    log = f"NCCL says {said}, but " if said else ""
    return f"{log}the byte counters of {names} tell nothing; look into /sys/class/infiniband/*/ports/*/counters"


def spoke(processes: Sequence[Process]) -> tuple[Process, ...]:
    """The processes that have chosen a network, and whose ranks are on several nodes as far as they say."""
    return tuple(one for one in processes if (one.network or one.transports) and one.nodes != 1)


def transport(processes: Sequence[Process]) -> str:
    """The networks that the processes use, such as ``NET/IB``; empty where none has said."""
    used = dict.fromkeys(name for one in spoke(processes) for name in _networks(one))
    return ", ".join(used)


def _networks(process: Process) -> tuple[str, ...]:
    """Its channels' networks; where there are no channels yet, the network that it has chosen."""
    channels = tuple(name for name in process.transports if name.startswith(("NET/", "COLLNET/")))
    return channels or ((f"NET/{process.network}",) if process.network else ())


def over_sockets(processes: Sequence[Process]) -> str:
    """Which process uses sockets, by its own words; empty where none says so."""
    bad = [
        f"NCCL in {_named(one)} uses {', '.join(networks)}"
        for one in spoke(processes)
        if (networks := [name for name in _networks(one) if not is_rdma(name.partition("/")[2])])
    ]
    return "; ".join(bad)


def _named(process: Process) -> str:
    return f"rank {process.rank}" if process.rank is not None else f"process {process.pid}"


def gdr(processes: Sequence[Process]) -> bool | None:
    """Whether all of them use GPUDirect RDMA; None where none has said."""
    told = [one.gdr for one in spoke(processes) if one.gdr is not None]
    return all(told) if told else None
