"""Checks over several nodes: what must be alike, what must differ, and which rails lead where."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shoal.checks import cross, cross_fabric
from shoal.checks.base import Check, Status
from shoal.facts.container import DockerFacts, Image
from shoal.facts.gpu import Gpu, GpuFacts
from shoal.facts.machine import MachineFacts
from shoal.facts.net import Address, Netdev, NetFacts, Qos, Route
from shoal.facts.node import Fleet, NodeFacts, Ping
from shoal.facts.rdma import Gid, RdmaDevice, RdmaFacts, RdmaPort
from shoal.facts.stack import Model, StackFacts

OK, WARN, FAIL, SKIP, UNKNOWN = Status.OK, Status.WARN, Status.FAIL, Status.SKIP, Status.UNKNOWN
CHECKS: dict[str, Check[Fleet]] = {item.id: item for item in (*cross.FLEET_CHECKS, *cross_fabric.FLEET_CHECKS)}
PFC = (False, False, False, True, False, False, False, False)


def gid(index: int, ip: str, kind: str = "RoCE v2") -> Gid:
    a, b, c, d = (int(part) for part in ip.split("."))
    return Gid(index, f"0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}", kind)


def node(number: int, **more: Any) -> NodeFacts:
    """A sound node: two HCAs on rails 192.168.100.0/24 and 192.168.101.0/24, all versions known."""
    ips = (f"192.168.100.{number}", f"192.168.101.{number}")
    devs = tuple(
        Netdev(f"eth{at}", kind="physical", mtu=9000, mac=f"02:00:00:00:0{number}:0{at}", qos=Qos("dscp", PFC),
               addresses=(Address(ip, 24),))
        for at, ip in enumerate(ips)
    )  # fmt: skip
    hcas = tuple(
        RdmaDevice(
            f"mlx5_{at}",
            (RdmaPort(1, "ACTIVE", "LinkUp", "Ethernet", 200.0, gids=(gid(0, ip, "IB/RoCE v1"), gid(1, ip))),),
            netdevs=(f"eth{at}",), board_id="MT_0000000938", fw_ver="28.45.4028", node_guid=f"b8ce:f603:{number}{at}",
        )
        for at, ip in enumerate(ips)
    )  # fmt: skip
    routes = tuple(Route(f"192.168.10{at}.0/24", f"eth{at}") for at in (0, 1))
    env = {
        "RAY_MODE": "head" if number == 1 else "worker",
        "VLLM_HOST_IP": ips[0],
        "RAY_AUTH_MODE": "token",
        "NCCL_IB_TC": "106",
        "SHOAL_IMAGE": "vllm:1",
    }
    if number != 1:
        env["RAY_ADDRESS"] = "192.168.100.1:6379"
    facts: dict[str, Any] = {
        "machine": MachineFacts(hostname=f"gx{number}", machine_id=f"id{number}", kernel="6.14.0",
                                architecture="aarch64", ofed="", clock_offset=0.1 * number),
        "gpu": GpuFacts((Gpu(0, "NVIDIA GB10", None),), driver="580.95.05"),
        "rdma": RdmaFacts(hcas),
        "net": NetFacts(devs, routes),
        "docker": DockerFacts(images=(Image("vllm:1", "sha256:aa"),)),
        "stack": StackFacts(python="3.12.3", torch="2.11.0", cuda_runtime="13.0.2", nccl="2.27.3", ray="2.60.0",
                            vllm="0.26.0", transformers="5.5.3",
                            models=(Model("/models/m", 1000, "sha256:1"),)),
        "env": env,
    }  # fmt: skip
    return NodeFacts(f"gx{number}", **{**facts, **more})


A, B, C = node(1), node(2), node(3)
PAIR = Fleet((A, B), pings=(Ping("gx1", "gx2", "192.168.100.1", "192.168.100.2", "eth0", 9000, answered=True),))


def second(**groups: Any) -> Fleet:
    """The pair, the second node with other fields: ``stack=dict(nccl=...)``; a value alone replaces a group."""
    changed = {
        name: replace(getattr(B, name), **value) if isinstance(value, dict) and name != "env" else value
        for name, value in groups.items()
    }
    if "env" in groups:
        changed["env"] = {**(B.env or {}), **groups["env"]}
    return replace(PAIR, nodes=(A, replace(B, **changed)))


def devs(change: Callable[[Netdev], Netdev]) -> Fleet:
    """The pair, the second node's interfaces changed."""
    return second(net={"netdevs": tuple(change(item) for item in B.net.netdevs or ())})


def hcas(change: Callable[[RdmaDevice], RdmaDevice]) -> Fleet:
    """The pair, the second node's HCAs changed."""
    return second(rdma={"devices": tuple(change(item) for item in B.rdma.devices or ())})


def moved(ip: str) -> Callable[[Netdev], Netdev]:
    return lambda item: replace(item, addresses=(Address(ip, 24),)) if item.name == "eth1" else item


def pings(**more: Any) -> Fleet:
    first = Ping("gx1", "gx2", "192.168.100.1", "192.168.100.2", "eth0", 9000, answered=False)
    return replace(PAIR, pings=(replace(first, **more),))


def pinned(*indices: str) -> Fleet:
    nodes = tuple(replace(one, env={**(one.env or {}), "NCCL_IB_GID_INDEX": index})
                  for one, index in zip((A, B), indices, strict=True))  # fmt: skip
    return replace(PAIR, nodes=nodes)


DIFFERENT: dict[str, Fleet] = {
    "cross.nccl": second(stack={"nccl": "2.26.2"}),
    "cross.torch": second(stack={"torch": "2.10.0"}),
    "cross.vllm": second(stack={"vllm": "0.25.1"}),
    "cross.ray": second(stack={"ray": "2.59.0"}),
    "cross.python": second(stack={"python": "3.11.7"}),
    "cross.transformers": second(stack={"transformers": "5.0.0"}),
    "cross.driver": second(gpu={"driver": "575.1"}),
    "cross.cuda": second(stack={"cuda_runtime": "12.8"}),
    "cross.image": second(docker={"images": (Image("vllm:1", "sha256:bb"),)}),
    "cross.architecture": second(machine={"architecture": "x86_64"}),
    "cross.kernel": second(machine={"kernel": "6.17.0"}),
    "cross.ofed": second(machine={"ofed": "OFED-internal-25.07"}),
    "cross.gpu-model": second(gpu={"gpus": (Gpu(0, "NVIDIA H100", 81559),)}),
    "cross.gpu-count": second(gpu={"gpus": ()}),
    "cross.hca-count": second(rdma={"devices": (B.rdma.devices or ())[:1]}),
    "cross.hca-rate": hcas(lambda item: replace(item, ports=(replace(item.ports[0], rate_gbps=100.0),))),
    "cross.link-layer": hcas(lambda item: replace(item, ports=(replace(item.ports[0], link_layer="InfiniBand"),))),
    "cross.traffic-class": second(env={"NCCL_IB_TC": "41"}),
    "cross.token-mode": second(env={"RAY_AUTH_MODE": ""}),
    "cross.addresses": devs(moved("192.168.101.1")),
    "cross.host-ips": second(env={"VLLM_HOST_IP": "192.168.100.1"}),
    "cross.macs": devs(lambda item: replace(item, mac="02:00:00:00:01:00")),
    "cross.guids": hcas(lambda item: replace(item, node_guid="b8ce:f603:10")),
    "cross.hostnames": second(machine={"hostname": "gx1"}),
    "cross.machine-ids": second(machine={"machine_id": "id1"}),
    "cross.reachable": replace(PAIR, unreachable={"gx3": "no route to host"}),
    "cross.clock": second(machine={"clock_offset": 5.0}),
    "cross.models": second(stack={"models": (Model("/models/m", 999, "sha256:2"),)}),
    "cross.environment": second(env={"NCCL_IB_TIMEOUT": "23"}),
    "cross.gid-index": pinned("1", "5"),
    "cross.rails": devs(moved("192.168.109.2")),
    "cross.rail-count": Fleet((A, B, replace(C, rdma=replace(C.rdma, devices=(C.rdma.devices or ())[:1])))),
    "cross.mtu": devs(lambda item: replace(item, mtu=1500)),
    "cross.ping": pings(small_answered=False),
    "cross.path-mtu": pings(small_answered=True),
    "cross.routes": second(net={"routes": (Route("192.168.100.0/24", "eth0"), Route("192.168.101.0/24", "eth0"))}),
    "cross.trust": devs(lambda item: replace(item, qos=Qos("pcp", PFC))),
    "cross.pfc": devs(lambda item: replace(item, qos=Qos("dscp", (False,) * 8))),
    "cross.control-subnet": second(env={"VLLM_HOST_IP": "192.168.101.2"}),
    "cross.head": second(env={"RAY_MODE": "head"}),
    "cross.firmware": hcas(lambda item: replace(item, fw_ver="28.40.1000")),
}
# Passes on every pair: it informs.
INFORM = {"cross.device-names"}


@pytest.mark.parametrize("id_", sorted(DIFFERENT))
def test_a_difference_is_found_and_named(id_: str) -> None:
    """Where one node differs, the check of that says so, with both values and what mends it."""
    finding = CHECKS[id_].run(DIFFERENT[id_])
    expected = WARN if CHECKS[id_].severity == "warning" or id_ in {"cross.clock", "cross.control-subnet"} else FAIL
    assert finding.status is expected, finding
    assert finding.evidence
    assert finding.fix


@pytest.mark.parametrize("id_", sorted(CHECKS))
def test_a_sound_pair_passes(id_: str) -> None:
    """Two nodes as they should be get OK; without a pinned GID index that check does not apply."""
    finding = CHECKS[id_].run(PAIR)
    assert finding.status is (SKIP if id_ == "cross.gid-index" else OK), finding


@pytest.mark.parametrize("id_", sorted(CHECKS))
def test_nodes_of_which_nothing_is_known_fail_nothing(id_: str) -> None:
    """Two nodes without facts are unknown, or it does not apply."""
    finding = CHECKS[id_].run(Fleet((NodeFacts("a"), NodeFacts("b"))))
    assert finding.status in ({OK} if id_ == "cross.reachable" else {UNKNOWN, SKIP}), finding
    assert id_ == "cross.reachable" or finding.evidence


@pytest.mark.parametrize("id_", sorted(set(CHECKS) - {"cross.reachable", "cross.host-ips"}))
def test_one_node_is_compared_with_nobody(id_: str) -> None:
    """A single node gets SKIP from all of them."""
    assert CHECKS[id_].run(Fleet((A,))).status is SKIP


def test_every_check_is_seen_to_fail() -> None:
    """No check over nodes can only pass, but for the one that informs."""
    assert set(CHECKS) - set(DIFFERENT) == INFORM


def test_the_kinds_of_clock_trouble() -> None:
    """A second is nothing, five are a warning, a minute breaks tokens and certificates."""
    judge = CHECKS["cross.clock"].run
    found = [judge(second(machine={"clock_offset": 0.1 + off})).status for off in (0.5, 5.0, 60.0)]
    assert found == [OK, WARN, FAIL]


def test_a_ring_of_three_is_whole() -> None:
    """In a ring each subnet has two nodes, and no node is missing on any."""

    def ring(number: int, left: str, right: str) -> NodeFacts:
        made = node(number)
        ends = tuple(replace(dev, addresses=(Address(ip, 24),))
                     for dev, ip in zip(made.net.netdevs or (), (left, right), strict=True))  # fmt: skip
        return replace(made, net=NetFacts(ends))

    fleet = Fleet(
        (ring(1, "10.0.12.1", "10.0.13.1"), ring(2, "10.0.12.2", "10.0.23.2"), ring(3, "10.0.13.3", "10.0.23.3"))
    )
    assert [CHECKS[id_].run(fleet).status for id_ in ("cross.rails", "cross.rail-count")] == [OK, OK]


def test_a_model_that_is_not_whole_is_named() -> None:
    """A file that the index names and the disk lacks is found on the node that lacks it."""
    finding = CHECKS["cross.models"].run(
        second(stack={"models": (Model("/models/m", 1000, "sha256:1", ("a.safetensors",)),)})
    )
    assert finding.evidence == "gx2: /models/m lacks a.safetensors"


def test_slots_of_another_kind_are_named_when_pinned() -> None:
    """A pinned slot that is empty, RoCE v1 or link-local on one node is told with node, device and content."""
    finding = CHECKS["cross.gid-index"].run(pinned("1", "0"))
    assert finding.evidence.startswith("gx2: slot 0 of mlx5_0 holds 192.168.100.2 (IB/RoCE v1)")
