"""The doctor over real ssh: several hosts in one call, and one whose cable is pulled."""

import json
from collections.abc import Iterator

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.subnets import free_subnet

from shoal.checks.base import Status
from shoal.checks.run import Choice
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.capture import load, pack
from shoal.host.gather import gather
from shoal.ops.doctor import examine
from shoal.ui.doctor_page import document

SUBNET = free_subnet(103)


@pytest.fixture(scope="module")
def hosts() -> Iterator[SshHosts]:
    with ssh_hosts(3, subnet=SUBNET) as found:
        yield found


def test_each_host_is_read_as_itself(hosts: SshHosts) -> None:
    """Its own name, addresses and interfaces, in one trip each."""
    read = [node_facts(gather(host, request(("machine", "net")))) for host in hosts.hosts()]
    assert [facts.machine.hostname for facts in read] == ["gpu-1", "gpu-2", "gpu-3"]
    assert [[item.ip for item in facts.net.netdev("fab0").ipv4] for facts in read] == [  # type: ignore[union-attr]
        [f"{SUBNET}.1"],
        [f"{SUBNET}.2"],
        [f"{SUBNET}.3"],
    ]
    assert all(abs(facts.machine.clock_offset or 9) < 5 for facts in read)


def test_all_are_judged_and_compared(hosts: SshHosts) -> None:
    """Every node by itself and all together; no check breaks."""
    report = examine(hosts.hosts(), (), Choice())
    assert (report.nodes, report.unreachable) == (("gpu-1", "gpu-2", "gpu-3"), {})
    assert {item.node for item in report.findings} == {"", "gpu-1", "gpu-2", "gpu-3"}
    assert [item for item in report.findings if "the check itself broke" in item.evidence] == []


def test_a_capture_judges_as_the_host_does(hosts: SshHosts, tmp_path: object) -> None:
    """Read live, packed and loaded again: the same facts."""
    from pathlib import Path

    taken = gather(hosts.hosts()[0], request())
    file = Path(str(tmp_path)) / "gpu-1.tar"
    file.write_bytes(pack(taken, "1.0"))
    assert node_facts(load(file)[0]) == node_facts(taken)


def test_a_host_without_its_cable_is_named_and_the_others_judged(hosts: SshHosts) -> None:
    """The code is 3; checks of several nodes run on those that answered."""
    hosts.cable("gpu-2", up=False)
    try:
        report = examine(hosts.hosts(patience=3), (), Choice(only=("host", "cross")))
    finally:
        hosts.cable("gpu-2", up=True)
    assert (report.nodes, list(report.unreachable), report.exit_code) == (("gpu-1", "gpu-3"), ["gpu-2"], 3)
    told = json.loads(json.dumps(document(report)))
    assert "gpu-2" in told["unreachable"]["gpu-2"]["what"]
    reachable = [item for item in report.findings if item.id == "cross.reachable"]
    assert [item.status for item in reachable] == [Status.FAIL]
