"""One question to many hosts: each has its answer, its error or its deadline."""

import threading

import pytest

from shoal.errors import HostUnreachable, ShoalError, TimedOut
from shoal.host.base import Host
from shoal.host.fake import FakeHost
from shoal.host.fanout import fanout


def name(host: Host) -> str:
    """A host's answer: what its file says."""
    return host.read("/etc/hostname") or "nothing"


def test_answers_and_errors_come_in_the_order_of_the_hosts() -> None:
    """A host that does not answer is an error in its place, and the others are asked."""
    hosts = [FakeHost({"/etc/hostname": "a"}), FakeHost(name="b", reachable=False), FakeHost({"/etc/hostname": "c"})]
    first, second, third = fanout(hosts, name, deadline=20)
    assert isinstance(second, HostUnreachable)
    assert (first, second.what, third) == ("a", "b does not answer", "c")


def test_no_host_is_no_answer() -> None:
    """Nobody asked, nobody waited for."""
    assert fanout([], name, deadline=0) == ()


def test_a_host_that_hangs_is_named_and_holds_up_nobody() -> None:
    """Where hosts hang, those behind them get their turn."""
    release = threading.Event()

    def ask(host: Host) -> str:
        if host.name == "slow":
            release.wait(60)
        return host.name

    hosts = [FakeHost(name=n) for n in ("slow", "slow", "a", "b", "c")]
    answers = fanout(hosts, ask, deadline=0.05, width=2)
    release.set()
    assert [str(a).splitlines()[0] if isinstance(a, TimedOut) else a for a in answers] == [
        "slow did not answer within 0.05 s", "slow did not answer within 0.05 s", "a", "b", "c",
    ]  # fmt: skip


def test_no_more_hosts_are_asked_at_once_than_wanted() -> None:
    """With a width of three, three are asked at once and never four."""
    lock, now, most, full = threading.Lock(), 0, 0, threading.Barrier(3, timeout=30)

    def ask(host: Host) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        full.wait()
        with lock:
            now -= 1

    fanout([FakeHost() for _ in range(9)], ask, deadline=60, width=3)
    assert most == 3


def test_a_mistake_in_the_question_is_raised() -> None:
    """What is no error of a host is the caller's own."""

    def ask(host: Host) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        fanout([FakeHost()], ask, deadline=20)


def test_an_error_of_the_family_is_an_answer() -> None:
    """Any ShoalError is told for its host."""

    def ask(host: Host) -> None:
        raise ShoalError("no GPU")

    (answer,) = fanout([FakeHost()], ask, deadline=20)
    assert isinstance(answer, ShoalError)
