"""Several real ssh hosts, asked at once, one of them cut off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.subnets import free_subnet

from shoal.errors import HostUnreachable
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.ops.init import look
from shoal.spec.cluster import parse

SUBNET = free_subnet(101)


@pytest.fixture(scope="module")
def lab() -> Iterator[SshHosts]:
    with ssh_hosts(4, subnet=SUBNET) as made:
        yield made


def name(host: Host) -> str:
    return host.run(["hostname"], timeout=20).out.strip()


def test_each_host_answers_for_itself(lab: SshHosts) -> None:
    """Every host is reached by its name, and has an address and a process tree of its own."""
    assert fanout(lab.hosts(), name, deadline=30) == ("gpu-1", "gpu-2", "gpu-3", "gpu-4")
    first = lab.hosts()[0]
    assert first.list("/sys/class/net") == ("fab0", "lo")
    assert first.run(["ip", "-brief", "-4", "address", "show", "fab0"], timeout=20).out.split()[2] == f"{SUBNET}.1/24"
    assert "sshd" in (first.read("/proc/1/cmdline") or "")


def test_a_host_without_its_cable_is_named_and_the_others_are_asked(lab: SshHosts) -> None:
    """One pulled cable is one error with its reason; it is reached again when the cable is back."""
    # By another name, since a kept connection would notice a pulled cable only after its keep-alives.
    third = SshHosts(lab.config, {"root@gpu-3": lab.places["gpu-3"]})
    fresh = [*lab.hosts()[:2], *third.hosts(patience=1), *lab.hosts()[3:]]
    lab.cable("gpu-3", up=False)
    try:
        one, two, three, four = fanout(fresh, name, deadline=30)
    finally:
        lab.cable("gpu-3", up=True)
    assert (one, two, four) == ("gpu-1", "gpu-2", "gpu-4")
    assert isinstance(three, HostUnreachable)
    assert three.why in {
        "it did not answer in time: it is down, or a firewall drops the packets",
        f"no way leads to {SUBNET}.3 from here",
    }
    assert name(third.hosts()[0]) == "gpu-3"


def test_init_writes_down_real_hosts(lab: SshHosts) -> None:
    """Four machines over ssh become four hosts with their own addresses."""
    spec = parse(look("lab", lab.hosts(), Path("shoal.yaml"), print), "shoal.yaml")
    assert [(host.name, host.fabric, host.role) for host in spec.hosts] == [
        ("gpu-1", f"{SUBNET}.1", "head"),
        ("gpu-2", f"{SUBNET}.2", "worker"),
        ("gpu-3", f"{SUBNET}.3", "worker"),
        ("gpu-4", f"{SUBNET}.4", "worker"),
    ]
