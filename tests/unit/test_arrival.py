"""The wait for a node's address."""

import asyncio
import io
import os
import signal
import socket
from collections.abc import Callable

import pytest

from shoal.agent import arrival, fabric
from shoal.agent.app import agent_app
from shoal.agent.arrival import Told, sockets, wait_for_address, waiting_words
from shoal.log import Event, EventLog
from shoal.state.status import NodeState, NodeStatus

pytestmark = pytest.mark.enable_socket
ELSEWHERE = "192.0.2.7"


NOW = NodeStatus(name="box2", role="worker", address=ELSEWHERE, state=NodeState.WAITING, stage="PREFLIGHT")


@pytest.fixture
def port() -> int:
    """A port that is free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def waited(port: int, is_here: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[Event], str]:
    """How a wait ends, what it logs, and the detail that its document has at the end."""
    monkeypatch.setattr(arrival, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(arrival, "SAY_EVERY", 0.03)
    events: list[Event] = []
    log = EventLog(io.StringIO(), clock=lambda: 0.0)
    log.listeners.append(events.append)
    told = Told(NOW)
    app = agent_app(told.status)
    came = asyncio.run(wait_for_address(log, ELSEWHERE, port, app, told, is_here))
    return came, events, told.status().detail


def test_an_address_that_is_there_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said, and nothing listens."""
    assert waited(port, lambda _: True, monkeypatch) == (True, [], "")


def test_an_address_that_comes_later_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line says what is missing and what there is, again while it lasts, and that the address has come."""
    monkeypatch.setattr(arrival, "other_addresses", lambda: ("10.0.0.5 (eth0)",))
    looks = iter([False] * 5 + [True])
    came, events, detail = waited(port, lambda _: next(looks), monkeypatch)
    words = (
        "waiting for the address 192.0.2.7: no interface of this machine has it yet; there is 10.0.0.5 (eth0). "
        "Bring the link up, or correct VLLM_HOST_IP in .env"
    )
    assert (came, detail) == (True, words)
    assert events == [
        Event("preflight", words, "warn"),
        Event("preflight", words, "warn"),
        Event("preflight", "the address 192.0.2.7 is there"),
    ]


def test_a_stop_ends_the_wait(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends the wait at once, and nothing is started."""

    def stopped(_: str) -> bool:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    assert waited(port, stopped, monkeypatch)[0] is False


def test_the_health_check_finds_a_program_that_waits(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits, the program listens on loopback."""
    seen: list[bool] = []

    def look(_: str) -> bool:
        with socket.socket() as probe:
            seen.append(probe.connect_ex(("127.0.0.1", port)) == 0)
        return len(seen) > 2

    assert waited(port, look, monkeypatch)[0] is True
    assert seen[1:] == [True, True]


def test_without_another_address_that_is_said() -> None:
    """A machine with nothing but loopback is told as such."""
    assert "there is no address but loopback. " in waiting_words(ELSEWHERE, [])


def test_a_loopback_node_listens_on_its_own_address_only(port: int) -> None:
    """Local nodes share the port, each on its 127.0.0.x."""
    found = sockets("127.0.0.2", port)
    assert [sock.getsockname() for sock in found] == [("127.0.0.2", port)]
    found[0].close()


def test_other_nodes_listen_on_loopback_too(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on the fabric answers on loopback as well, unless another of this machine does so already."""
    monkeypatch.setattr(arrival, "is_loopback", lambda _: False)
    first = sockets("127.0.0.2", port)
    second = sockets("127.0.0.3", port)
    names = [[sock.getsockname()[0] for sock in found] for found in (first, second)]
    for sock in (*first, *second):
        sock.close()
    assert names == [["127.0.0.2", "127.0.0.1"], ["127.0.0.3"]]


FOUND = {"lo": ("127.0.0.1", "::1"), "eth0": ("10.0.0.5",), "fab0": ("192.168.100.2", "fe80::1")}


@pytest.mark.parametrize("asked", ["", "auto"])
def test_the_interface_with_the_address_is_chosen(asked: str) -> None:
    """Left out, or `auto`: the exact name of the interface that has the fabric's address, and why."""
    env, words = fabric.choose({"NCCL_SOCKET_IFNAME": asked, "A": "b"}, "192.168.100.2", FOUND)
    assert env == {"NCCL_SOCKET_IFNAME": "=fab0", "A": "b"}
    assert words == "NCCL_SOCKET_IFNAME: =fab0 (chosen: this interface has 192.168.100.2)"


@pytest.mark.parametrize(("asked", "address"), [("=eth0", "192.168.100.2"), ("", "192.168.100.9"), ("", "127.0.0.1")])
def test_otherwise_the_interface_is_left_alone(asked: str, address: str) -> None:
    """One that is set stays; an address of no interface, and loopback, choose none."""
    env = {"NCCL_SOCKET_IFNAME": asked}
    assert fabric.choose(env, address, FOUND) == (env, "")


def test_this_machines_interfaces_are_read() -> None:
    """Loopback is among them, with its address."""
    assert "127.0.0.1" in fabric.interfaces()["lo"]
