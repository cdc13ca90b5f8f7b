"""Real RDMA between two guests: soft-RoCE devices, a real transfer, and what the kernel says of both."""

from tests.vm.conftest import Pair
from tests.vm.guest import Guest

PORT = "/sys/class/infiniband/rxe0/ports/1"


def sent_packets(guest: Guest) -> int:
    return int(guest.sh(f"cat {PORT}/hw_counters/sent_pkts"))


def test_the_guests_have_real_rdma_devices(pair: Pair) -> None:
    """The kernel lists an ACTIVE port whose GID table maps the interface's IPv4 address as RoCE v2."""
    seen = [guest.sh(f"cat {PORT}/state {PORT}/link_layer {PORT}/gids/1 {PORT}/gid_attrs/types/1") for guest in pair]
    assert seen == [
        f"4: ACTIVE\nEthernet\n0000:0000:0000:0000:0000:ffff:c0a8:640{number}\nRoCE v2\n" for number in (1, 2)
    ]


def test_a_transfer_by_rdma_moves_the_counters(pair: Pair) -> None:
    """ib_write_bw writes 400 times 64 KiB into the other guest, and the device's own counter shows the packets."""
    server, client = pair
    before = sent_packets(client)
    words = ("ib_write_bw", "-d", "rxe0", "-x", "1", "-s", "65536", "-n", "400", "--report_gbits")
    server.send(*words, timeout=120)
    client.sh("for i in $(seq 50); do nc -z 192.168.100.1 18515 2>/dev/null && break; sleep 0.2; done; true")
    told = client.run([*words, "192.168.100.1"], timeout=120)
    assert server.answer().code == 0
    assert "65536" in told.out
    # rxe has no byte counters: packets of at most the active MTU, 4,096 bytes of payload.
    assert sent_packets(client) - before >= 400 * 65536 / 4096
