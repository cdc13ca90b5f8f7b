"""Proof by counters in the guests: real RDMA traffic is proven, and the same amount over TCP is not."""

from dataclasses import replace

from tests.vm.conftest import Pair
from tests.vm.guest import Guest

from shoal.bench.counters import REQUEST, NodeProof, ports
from shoal.bench.proof import MESSAGE, Traffic, judge
from shoal.engine.transport import Look
from shoal.engine.transport import judge as watch
from shoal.facts.parse.net import parse_net
from shoal.facts.parse.rdma import parse_rdma
from shoal.host.gather import gather
from shoal.state.status import Transport

MESSAGES = 5  # ib_write_bw sends no fewer
AMOUNT = MESSAGES * MESSAGE
KNOWN = Traffic(expected=AMOUNT)
NCCL = (2, 27)
SEND = """
import socket
with socket.create_connection(("192.168.100.1", 18600)) as line:
    for _ in range({amount} >> 20):
        line.sendall(bytes(1 << 20))
"""
RECEIVE = """
import socket
with socket.create_server(("192.168.100.1", 18600)) as door:
    line, _ = door.accept()
    while line.recv(1 << 20):
        pass
"""


def look(pair: Pair) -> tuple[NodeProof, ...]:
    """What both nodes' counters show, read as an agent reads them."""
    return tuple(_look(guest) for guest in pair)


def _look(guest: Guest) -> NodeProof:
    seen = gather(guest, replace(REQUEST, deadline=60))  # an emulated machine on a loaded one
    found = ports(parse_rdma(seen), parse_net(seen), {}, NCCL)
    return NodeProof(name=guest.name, address=f"192.168.100.{guest.number}", ports=found)


def over_rdma(pair: Pair) -> None:
    """Messages of 64 MiB into the first guest's memory."""
    server, client = pair
    words = ("ib_write_bw", "-d", "rxe0", "-x", "1", "-s", str(MESSAGE), "-n", str(MESSAGES), "-t", "1", "--cq-mod=1")
    words = (*words, "-p", "18601")
    server.send(*words, timeout=300)
    client.sh("for i in $(seq 50); do nc -z 192.168.100.1 18601 2>/dev/null && break; sleep 0.2; done; true")
    client.run([*words, "192.168.100.1"], timeout=300)
    assert server.answer().code == 0


def over_tcp(pair: Pair) -> None:
    """The same amount over the same interface, by TCP."""
    server, client = pair
    server.send("python3", "-c", RECEIVE, timeout=300)
    client.sh("for i in $(seq 50); do grep -q 64A8C0:48A8 /proc/net/tcp && break; sleep 0.1; done; sleep 1")
    client.run(["python3", "-c", SEND.format(amount=AMOUNT)], timeout=300)
    assert server.answer().code == 0


def test_bytes_over_rdma_are_proven(pair: Pair) -> None:
    """320 MiB in messages of 64 MiB show on both HCAs, as packets times the MTU: proven, and RDMA to the watch."""
    before = look(pair)
    over_rdma(pair)
    after = look(pair)
    told = judge(before, after, KNOWN)
    assert (told.verdict, told.words) == ("rdma", "over RDMA: each HCA carried its share")
    assert [(row.node, row.hca, row.rail, row.estimate, row.verdict) for row in told.rows] == [
        (f"guest-{number}", "rxe0", "192.168.100.0/24", True, "carried its share") for number in (1, 2)
    ]
    # An upper bound, and a close one: a packet for each 4 KiB, and few acknowledgements.
    assert all(row.seen is not None and AMOUNT <= row.seen < 1.1 * AMOUNT for row in told.rows)
    status = watch(Look(0.0, 0.0, before), Look(60.0, 1000.0, after))
    assert (status.kind, status.degraded) == (Transport.RDMA, False)


def test_the_same_amount_over_tcp_is_not(pair: Pair) -> None:
    """RDMA is planned and the bytes go by TCP: the proof says so, and the supervisor's watch calls it degraded."""
    before = look(pair)
    over_tcp(pair)
    after = look(pair)
    told = judge(before, after, KNOWN)
    assert (told.verdict, told.proven, {row.verdict for row in told.rows}) == ("tcp", False, {"idle"})
    assert told.words.startswith(
        "serving over TCP, although RDMA is planned: guest-1, guest-2: no RDMA traffic on rxe0"
    )
    status = watch(Look(0.0, 0.0, before), Look(60.0, 1000.0, after))
    assert (status.kind, status.degraded) == (Transport.TCP, True)
