"""``shoal init``: what was read of machines, as a cluster's file with reasons."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.fabric_nodes import infiniband, netdev, node, roce

from shoal.errors import HostUnreachable, ShoalError, UsageError
from shoal.facts.machine import MachineFacts
from shoal.facts.node import NodeFacts
from shoal.host.fake import FakeHost
from shoal.ops.init import look, write
from shoal.plan.draft import draft
from shoal.plan.fabric import plan_fabric
from shoal.render.cluster_file import cluster_file
from shoal.spec.cluster import parse


def text(nodes: Sequence[NodeFacts], destinations: Sequence[str] = ()) -> str:
    """The file for these nodes, which must read back."""
    names = destinations or [one.name for one in nodes]
    made = cluster_file(draft("lab", names, nodes, plan_fabric(nodes, (2, 28))))
    assert parse(made, "shoal.yaml").cluster == "lab"
    return made


def spark(number: int) -> NodeFacts:
    """One of two boxes joined by a cable: two RoCE ports of one card."""
    cards = [
        roce("rocep1s0f1", "0000:01:00.1", "enp1s0f1np1", f"192.168.100.{number}/24", index=3),
        roce("roceP2p1s0f1", "0002:01:00.1", "enP2p1s0f1np1", f"192.168.101.{number}/24", index=5),
    ]
    return node(f"spark-{number}", cards, gpu="NVIDIA GB10")


PAIR = """\
# Written by shoal init, which looked at 2 host(s). Every line may be changed.
cluster: lab
hosts:
  - name: spark-1
    ssh: me@10.0.0.1
    fabric: 192.168.100.1  # on enp1s0f1np1, of rocep1s0f1, 200 Gb/s
    gpus: 1  # NVIDIA GB10
    role: head  # the first host
  - name: spark-2
    fabric: 192.168.100.2  # on enp1s0f1np1, of rocep1s0f1, 200 Gb/s
    gpus: 1  # NVIDIA GB10
    role: worker
fabric:
  kind: roce  # every chosen port is RDMA over Ethernet
model: smollm2  # a key of the registry, the path of a folder, or ORGANISATION/MODEL of the hub
"""


def test_two_boxes_with_a_cable() -> None:
    """Names, addresses of the fabric that both reach, GPUs and roles; ssh's name where it is another."""
    assert text([spark(1), spark(2)], ["me@10.0.0.1", "spark-2"]) == PAIR


def lines(made: str, *keys: str) -> list[str]:
    return [line.strip() for line in made.splitlines() if line.strip().startswith(keys)]


def test_infiniband_with_an_ethernet_beside_it() -> None:
    """Where no RDMA port has an address, the nodes meet on the interface of the control plane."""
    cards = [infiniband("mlx5_0", "0000:18:00.0")]
    nodes = [
        node(f"h100-{n}", devices=cards, netdevs=[netdev("bond0", 2, f"10.1.0.{n}/24")], gpu="NVIDIA H100")
        for n in (1, 2)
    ]
    made = text(nodes)
    assert lines(made, "fabric: ", "kind") == [
        "fabric: 10.1.0.1  # on bond0",
        "fabric: 10.1.0.2  # on bond0",
        "kind: infiniband  # the link layer of every chosen port",
    ]


def test_a_machine_without_rdma_is_named() -> None:
    """One machine without a usable port makes it TCP, and is named; what is not known stays auto."""
    bare = node("bare", netdevs=[netdev("eth0", 2, "192.168.100.9/24")])
    made = text([spark(1), bare])
    assert lines(made, "kind") == ["kind: tcp  # no usable RDMA port on bare: shoal doctor says why"]
    assert lines(text([node("empty")]), "fabric: ", "gpus") == [
        "fabric: auto  # no address was found that the other hosts reach",
        "gpus: auto  # no GPU was seen",
    ]


def test_machines_that_share_a_name_are_called_as_ssh_does() -> None:
    """A name that is not a name for each is of no use, nor one that is empty; odd letters become dashes."""
    twins = [replace(spark(n), machine=MachineFacts(hostname="localhost")) for n in (1, 2)]
    assert lines(text(twins, ["root@gpu_a", "ssh://gpu-b:22"]), "- name", "ssh") == [
        "- name: gpu-a",
        "ssh: root@gpu_a",
        "- name: gpu-b-22",
        "ssh: ssh://gpu-b:22",
    ]


def test_a_name_of_digits_stays_text() -> None:
    """A machine called 7 is no number."""
    assert lines(text([replace(spark(1), machine=MachineFacts(hostname="7"))]), "- name") == ['- name: "7"']


def test_a_machine_that_does_not_answer_is_told_and_nothing_is_made() -> None:
    """Each that is silent is told, and the last error names them all."""
    told: list[ShoalError] = []
    hosts = [FakeHost(name="a", reachable=False), FakeHost(name="b", reachable=False)]
    with pytest.raises(HostUnreachable) as raised:
        look("lab", hosts, Path("shoal.yaml"), told.append)
    assert [error.what for error in told] == ["a does not answer", "b does not answer"]
    assert raised.value.what == "2 of 2 host(s) could not be asked: a, b"


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Nobody's file is written over."""
    file = tmp_path / "shoal.yaml"
    write(file, "a")
    with pytest.raises(UsageError) as raised:
        write(file, "b")
    assert (file.read_text(), raised.value.fix) == ("a", f"mv {file} {file}.old; or name another with -o")
