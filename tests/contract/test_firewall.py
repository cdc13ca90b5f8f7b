"""The rules of ``shoal firewall``, loaded by nft on a namespace host: who gets through, and who does not."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.sshd import SBIN
from tests.subnets import free_subnet

from shoal.host.ssh import SshHost
from shoal.ops.firewall import rules
from shoal.plan.firewall import Wish

# A port of the kernel's choice, GCS, the agent, the supervisor, a worker of Ray's; the API, and one of nobody's.
CLOSED, API, OTHER = (45001, 6379, 8700, 8701, 27050), 8000, 9999
SUBNET = free_subnet(141)
NODE = f"{SUBNET}.1"
LISTEN = """
import socket, sys
held = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
while True:  # the first port echoes; at the others the kernel accepts
    asked, _ = held[0].accept()
    while data := asked.recv(9):
        asked.sendall(data)
"""
ASK = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 3).close()
    except ConnectionRefusedError:
        continue
    print(port)
"""
HOLD = """
import socket, sys
kept = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
for line in sys.stdin:
    kept.sendall(b"x")
    print(kept.recv(1).decode(), flush=True)
"""


def inside(hosts: SshHosts, name: str, program: str, *words: object) -> list[str]:
    """The argv of a Python program on a host."""
    return ["ip", "netns", "exec", hosts.places[name][1], "python3", "-c", program, *map(str, words)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[SshHosts]:
    """A node that listens (gpu-1), another of the cluster (gpu-2), and a stranger (gpu-3), all with an sshd."""
    if not shutil.which("nft", path=SBIN):
        pytest.skip("not installed: nft (apt install nftables)")
    with ssh_hosts(3, subnet=SUBNET) as made:
        ports = (*CLOSED, API, OTHER)
        with subprocess.Popen(inside(made, "gpu-1", LISTEN, *ports), stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            yield made
            server.kill()


@pytest.fixture
def node(hosts: SshHosts) -> Iterator[SshHost]:
    """The node, without rules of ours at the end."""
    host = hosts.hosts()[0]
    yield host
    host.run(["/usr/sbin/nft", "delete", "table", "inet", "shoal"], timeout=20)


def load(node: SshHost, wish: Wish) -> None:
    """As a user does it: printed on one machine, loaded over ssh on another."""
    text = rules(None, (NODE, f"{SUBNET}.2"), {}, wish)
    node.run(["/usr/sbin/nft", "-f", "-"], timeout=20, input=text)


def reached(hosts: SshHosts, name: str, ports: Sequence[int]) -> list[int]:
    """The node's ports that a host can connect to."""
    done = subprocess.run(inside(hosts, name, ASK, NODE, *ports), capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_strangers_reach_the_api_alone(hosts: SshHosts, node: SshHost) -> None:
    """Loaded, a stranger reaches ssh, the API and what is not ours; the cluster's hosts and the node reach it all."""
    every = (22, *CLOSED, API, OTHER)
    assert reached(hosts, "gpu-3", every) == list(every)
    load(node, Wish())
    load(node, Wish())  # again: it replaces itself
    assert reached(hosts, "gpu-3", every) == [22, API, OTHER]
    assert reached(hosts, "gpu-2", every) == list(every)
    assert reached(hosts, "gpu-1", every) == list(every)


def test_the_api_for_named_clients_alone(hosts: SshHosts, node: SshHost) -> None:
    """With --api-from the API is closed to all but them and the cluster; --also and --leave open what they name."""
    load(node, Wish(api_from=("10.0.0.0/8",), leave=(45001,)))
    assert reached(hosts, "gpu-3", (*CLOSED, API)) == [45001]
    load(node, Wish(api_from=(f"{SUBNET}.3",)))
    assert reached(hosts, "gpu-3", (*CLOSED, API)) == [API]
    load(node, Wish(also=(f"{SUBNET}.0/24",)))
    assert reached(hosts, "gpu-3", (*CLOSED, API)) == [*CLOSED, API]


def test_what_stands_is_not_cut(hosts: SshHosts, node: SshHost) -> None:
    """A stranger's connection that stood before the rules were loaded goes on; a new one is refused."""
    argv = inside(hosts, "gpu-3", HOLD, NODE, CLOSED[0])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as kept:
        assert said(kept) == "x\n"
        load(node, Wish())
        assert reached(hosts, "gpu-3", CLOSED) == []
        assert said(kept) == "x\n"
        kept.kill()


def said(kept: "subprocess.Popen[str]") -> str:
    """What comes back over the connection that is kept."""
    assert kept.stdin is not None
    assert kept.stdout is not None
    kept.stdin.write("\n")
    kept.stdin.flush()
    return kept.stdout.readline()
