"""Each rail of a fabric measured by perftest between its neighbours, through the nodes' hosts, one after the other.

No Ray and no GPU takes part: it is what the cards, cables and switches carry from one host's memory to another's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from shoal.bench import perftest, references
from shoal.bench.perftest import BANDWIDTH, LATENCY, Shape
from shoal.errors import ShoalError
from shoal.facts.node import NodeFacts
from shoal.host.base import Host, Result
from shoal.host.fanout import fanout
from shoal.plan.fabric.types import Fabric, HcaPort

FIRST_DOOR = 18515  # perftest's own port; each measurement takes the next, for the last one's may not be free yet
TRIES, PAUSE = 30, 0.5  # of the client, until the server listens
START = 30.0  # seconds for a program to begin, and to end
Grade = Literal["good", "slow", "failed", "unknown"]


@dataclass(frozen=True)
class End:
    """One end of a measurement. ``real`` is False for soft-RoCE, whose rate says nothing of a card."""

    node: str
    device: str
    port: int
    gid: int | None
    address: str
    rate_gbps: float | None
    layer: str = ""
    gpus: tuple[str, ...] = ()
    real: bool = True

    @property
    def name(self) -> str:
        """Node and device."""
        return f"{self.node} {self.device}" + (f":{self.port}" if self.port != 1 else "")


@dataclass(frozen=True)
class Way:
    """From one end of a rail to its neighbour."""

    rail: str
    client: End
    server: End


@dataclass(frozen=True)
class Measured:
    """What one way carries, and the verdict in words."""

    way: Way
    gbps: float | None
    usec: float | None
    grade: Grade
    words: str


def ways(fabric: Fabric, nodes: Sequence[NodeFacts]) -> tuple[Way, ...]:
    """Each rail's ports in the order of the nodes, each with the next; in a circle where there are more than two."""
    out = []
    for rail in fabric.rails:
        ends = [end for number, (device, port) in rail.members if (end := _end(fabric, nodes, number, device, port))]
        following = [*pairwise(ends), *([(ends[-1], ends[0])] if len(ends) > 2 else [])]
        out += [Way(", ".join(rail.subnets), one, two) for one, two in following if one.node != two.node]
    return tuple(out)


def _end(fabric: Fabric, nodes: Sequence[NodeFacts], number: int, device: str, port: int) -> End | None:
    facts = nodes[number]
    row = next((row for row in fabric.nodes[number].hcas if (row.device, row.port) == (device, port)), None)
    address = _address(facts, row) if row else ""
    if row is None or not address:
        return None
    card = facts.rdma.device(device)
    layer = row.link_layer or ""
    return End(
        facts.name,
        device,
        port,
        row.gid_index if layer == "Ethernet" else None,
        address,
        row.rate_gbps,
        layer,
        tuple(dict.fromkeys(gpu.name for gpu in facts.gpu.gpus or ())),
        real=card is not None and card.pci is not None,
    )


def _address(facts: NodeFacts, row: HcaPort) -> str:
    """Where the server is found: the port's own address; on InfiniBand without IPoIB the node's on any interface."""
    if row.ipv4:
        return row.ipv4
    every = [item.ip for dev in facts.net.netdevs or () for item in dev.ipv4 if not item.ip.startswith("127.")]
    return every[0] if every else ""


def measure(
    found: Sequence[Way], hosts: Mapping[str, Host], shape: Shape, pause: Callable[[float], None] = time.sleep
) -> Iterator[Measured]:
    """Bandwidth and latency of each way, one after the other: two at once would share a card."""
    for number, way in enumerate(found):
        wide = _transfer(BANDWIDTH, way, hosts, shape, FIRST_DOOR + 2 * number, pause)
        quick = _transfer(LATENCY, way, hosts, shape, FIRST_DOOR + 2 * number + 1, pause)
        yield judge(way, wide, quick)


def _transfer(
    program: str, way: Way, hosts: Mapping[str, Host], shape: Shape, door: int, pause: Callable[[float], None]
) -> str:
    """What the client printed.

    Raises nothing: a way that fails is told beside the others, as text that begins with ``!``.
    """
    patience = START + 10 * shape.seconds
    server, client = hosts[way.server.node], hosts[way.client.node]
    # A server whose client never comes would wait for ever, beyond the end of this program.
    bounded = ("timeout", f"{patience:.0f}")
    ends = (way.server, way.client)
    words = [(*bounded, *perftest.argv(program, end.device, end.port, end.gid, shape, door)) for end in ends]

    def ask(host: Host) -> Result:
        if host is server:
            return host.run(words[0], timeout=patience + START, ok=range(256))
        return _client(host, (*words[1], way.server.address), patience, pause)

    told = fanout((server, client), ask, deadline=2 * (patience + START))
    last = told[1]
    answers = [(way.server, told[0]), (way.client, last)]
    if isinstance(last, Result) and not perftest.refused(last.out + last.err):
        answers.reverse()  # it met a server: what it says comes first
    broken = next((text for end, answer in answers if (text := _broken(program, end, answer))), "")
    return f"!{broken}" if broken else last.out if isinstance(last, Result) else ""


def _broken(program: str, end: End, answer: Result | ShoalError) -> str:
    """Why one end failed; empty where it did not."""
    if isinstance(answer, ShoalError):
        return answer.what
    if answer.code == 127:
        return f"{end.node} has no {program}: apt install {perftest.PACKAGE}"
    return f"{program} on {end.name}: {perftest.complaint(answer.out, answer.err)}" if answer.code else ""


def _client(host: Host, words: tuple[str, ...], patience: float, pause: Callable[[float], None]) -> Result:
    for _ in range(TRIES):
        result = host.run(words, timeout=patience + START, ok=range(256))
        if result.code == 0 or not perftest.refused(result.out + result.err):
            break
        pause(PAUSE)
    return result


def judge(way: Way, wide: str, quick: str) -> Measured:
    """The verdict of what both programs printed."""
    broken = next((text[1:] for text in (wide, quick) if text.startswith("!")), "")
    speed, delay = perftest.gbps(wide), perftest.microseconds(quick)
    if speed is None:
        return Measured(way, None, delay, "failed", broken or f"{BANDWIDTH} printed no table that is known")
    late = f"; {delay:g} us, more than {references.LATENCY_SOURCE}" if delay and delay > references.LATENCY_US else ""
    ends = (way.client, way.server)
    if not all(end.real for end in ends):
        return Measured(way, speed, delay, "unknown", "soft-RoCE: it works, and its rate says nothing of a card")
    rates = [end.rate_gbps for end in ends if end.rate_gbps]
    if len(rates) < 2:
        return Measured(way, speed, delay, "unknown", "the link's rate is not known")
    slower = min(ends, key=lambda end: end.rate_gbps or 0.0)
    bound = references.link(min(rates), slower.layer, slower.gpus)
    said = f"{speed / min(rates):.0%} of {min(rates):g} Gb/s"
    if speed < bound.at_least:
        return Measured(way, speed, delay, "slow", f"{said}, expected {bound.at_least:g} Gb/s ({bound.source}){late}")
    grade: Grade = "slow" if late else "good"
    return Measured(way, speed, delay, grade, f"{said}{late}" + (f"; {broken}" if broken else ""))
