"""The fabric plan: candidates, rails, shape, and each node's settings."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Golden
from tests.unit.fabric_nodes import FE80, infiniband, mapped, netdev, node, roce, spark, table

from shoal.facts.gpu import GpuFacts
from shoal.facts.net import NetFacts, Route
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import ROCE_V1, ROCE_V2, Gid, RdmaFacts
from shoal.facts.read import node_facts
from shoal.host.snapshot import Reply, Snapshot
from shoal.plan.fabric import Fabric, NodeFabric, document, plan_fabric

NEW, OLD = (2, 30, 7), (2, 20, 5)
ONE_CABLE = [
    spark(1, [[], ["192.168.100.1/24", "192.168.101.1/24"]]),
    spark(2, [[], ["192.168.100.2/24", "192.168.101.2/24"]]),
]
TWO_CABLES = [
    spark(1, [["192.168.102.1/24", "192.168.103.1/24"], ["192.168.100.1/24", "192.168.101.1/24"]]),
    spark(2, [["192.168.102.2/24", "192.168.103.2/24"], ["192.168.100.2/24", "192.168.101.2/24"]]),
]
RING_3 = [
    spark(1, [["10.12.0.1/24", "10.12.1.1/24"], ["10.13.0.1/24", "10.13.1.1/24"]]),
    spark(2, [["10.12.0.2/24", "10.12.1.2/24"], ["10.23.0.2/24", "10.23.1.2/24"]]),
    spark(3, [["10.13.0.3/24", "10.13.1.3/24"], ["10.23.0.3/24", "10.23.1.3/24"]]),
]
# The cables go 1 - 3 - 2 - 4 - 1.
RING_4 = [
    spark(1, [["10.13.0.1/24"], ["10.14.0.1/24"]], twins=False),
    spark(2, [["10.23.0.2/24"], ["10.24.0.2/24"]], twins=False),
    spark(3, [["10.13.0.3/24"], ["10.23.0.3/24"]], twins=False),
    spark(4, [["10.14.0.4/24"], ["10.24.0.4/24"]], twins=False),
]
SWITCH = [spark(number, [[f"192.168.100.{number}/24"]], twins=False) for number in (1, 2, 3)]
OUT = (Route("default", "bond0", "10.0.0.254"),)


def h100(number: int) -> NodeFacts:
    """Eight InfiniBand HCAs, a bond with the default route, a storage HCA of half the rate, an idle one."""
    buses = ("18", "2a", "3a", "5d", "9a", "ab", "ba", "db")
    compute = [infiniband(f"mlx5_{at}", f"0000:{bus}:00.0") for at, bus in enumerate(buses)]
    storage = infiniband("mlx5_8", "0000:c1:00.0", rate=100.0)
    idle = infiniband("mlx5_9", "0000:c1:00.1", state="DOWN")
    bond = roce("mlx5_bond_0", "0000:29:00.0", "bond0", f"10.0.0.{number}/24", index=2, rate=100.0)
    ib0 = netdev("ib0", 5, f"10.9.0.{number}/24", mtu=2044, kind="infiniband")
    devices = [*compute, storage, idle]
    return node(f"h100-{number}", [bond], devices=devices, netdevs=[ib0], routes=OUT, gpu="NVIDIA H100 80GB HBM3")


def vlan(number: int) -> NodeFacts:
    """A ConnectX-6 whose fabric is a VLAN above a management address."""
    port, tagged = "ens1f0np0", "ens1f0np0.100"
    home, fabric = f"10.1.{number}.7", f"192.168.100.{number}"
    gids = table([(FE80, port), (home, port), (FE80, tagged), (fabric, tagged)])
    card = roce("mlx5_0", "0000:3b:00.0", port, f"{home}/24", rate=100.0, gids=gids)
    above = netdev(tagged, 9, f"{fabric}/24", kind="vlan", vlan_id=100)
    return node(f"cx6-{number}", [card], netdevs=[above])


def bonded(number: int) -> NodeFacts:
    """Two ports in a LAG: one RDMA device."""
    device, dev = roce("mlx5_bond_0", "0000:3b:00.0", "bond0", f"192.168.100.{number}/24", rate=200.0)
    device = replace(device, netdevs=("ens1f0np0", "ens1f1np1"))
    below = [netdev(name, at + 20, master="bond0") for at, name in enumerate(device.netdevs or ())]
    return node(f"lag-{number}", [(device, replace(dev, kind="bond", lower=("ens1f0np0", "ens1f1np1")))], netdevs=below)


def guests(number: int) -> NodeFacts:
    """A virtual machine with two virtual functions of two cards."""
    cards = []
    for at in range(2):
        device, dev = roce(f"mlx5_{at}", f"0000:0{at}:00.2", f"ens{at}v", f"10.5{at}.0.{number}/24", index=3 + at)
        cards.append((replace(device, is_vf=True), dev))
    return node(f"vm-{number}", cards)


def holder(number: int) -> NodeFacts:
    """A host that uses its card, and shows a virtual function of it too."""
    card = roce("mlx5_0", "0000:3b:00.0", "ens1f0np0", f"192.168.100.{number}/24")
    device, dev = roce("mlx5_1", "0000:3b:00.2", "ens1f0v0", f"192.168.100.{number + 100}/24", index=9)
    return node(f"host-{number}", [card, (replace(device, is_vf=True, physfn="0000:3b:00.0"), dev)])


def pair(*names: str, plugin: str | None = None, env: dict[str, str] | None = None) -> list[NodeFacts]:
    """Two nodes with one HCA each."""
    cards = [roce(name, "0000:01:00.0", "eth1", f"192.168.100.{at}/24") for at, name in enumerate(names, 1)]
    return [node(f"n{at}", [card], plugin=plugin, env=env) for at, card in enumerate(cards, 1)]


def odd(number: int, gids: tuple[Gid, ...], *texts: str) -> NodeFacts:
    """A node whose only HCA has this GID table."""
    return node(f"n{number}", [roce("mlx5_0", "0000:01:00.0", "eth1", *texts, gids=gids)])


def shifted(number: int) -> NodeFacts:
    """The same fabric address, in another slot on the second node."""
    rows = [(FE80, "eth1")] if number == 1 else [(FE80, "eth1"), ("fd00:0000:0000:0000:0000:0000:0000:0002", "eth1")]
    return odd(number, table([*rows, (f"192.168.100.{number}", "eth1")]), f"192.168.100.{number}/24")


def only_v1(number: int) -> NodeFacts:
    """The address has a RoCE v1 slot only."""
    ip = f"192.168.100.{number}"
    return odd(number, (Gid(0, FE80, ROCE_V1, "eth1"), Gid(1, mapped(ip), ROCE_V1, "eth1")), f"{ip}/24")


def only_link_local(number: int) -> NodeFacts:
    """No address at all."""
    return odd(number, table([(FE80, "eth1")]))


def only_ipv6(number: int) -> NodeFacts:
    """A fabric of IPv6 addresses."""
    return odd(number, table([(FE80, "eth1"), (f"fd00:0000:0000:0001::{number}", "eth1")]), f"fd00:0:0:1::{number}/64")


def foreign(number: int) -> NodeFacts:
    """A slot in between belongs to another network namespace: its type cannot be read."""
    ip = f"192.168.100.{number}"
    slots = (
        Gid(0, FE80, ROCE_V1, "eth1"),
        Gid(1, mapped(ip), ROCE_V1, "eth1"),
        Gid(2, mapped("172.18.0.2"), None, None, "EINVAL"),
        Gid(3, mapped(ip), ROCE_V2, "eth1"),
    )
    return odd(number, slots, f"{ip}/24")


PLUGIN = "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so"
MACHINES: dict[str, tuple[list[NodeFacts], tuple[int, ...]]] = {
    "spark-one-cable": (ONE_CABLE, NEW),
    "spark-two-cables": (TWO_CABLES, NEW),
    "spark-ring-of-3": (RING_3, NEW),
    "spark-ring-of-3-old-nccl": (RING_3, (2, 27, 3)),
    "spark-ring-of-4": (RING_4, NEW),
    "spark-switch": (SWITCH, NEW),
    "h100-infiniband": ([h100(1), h100(2)], NEW),
    "connectx6-vlan": ([vlan(1), vlan(2)], NEW),
    "bond": ([bonded(1), bonded(2)], NEW),
    "virtual-functions": ([guests(1), guests(2)], NEW),
    "virtual-function-beside-its-card": ([holder(1), holder(2)], NEW),
    "plugin": (pair("mlx5_0", "mlx5_0", plugin=PLUGIN), NEW),
    "roce-v1-only": ([only_v1(1), only_v1(2)], NEW),
    "link-local-only": ([only_link_local(1), only_link_local(2)], NEW),
    "ipv6-only": ([only_ipv6(1), only_ipv6(2)], NEW),
    "index-differs": ([shifted(1), shifted(2)], NEW),
    "index-differs-old-nccl": ([shifted(1), shifted(2)], OLD),
    "another-namespace": ([foreign(1), foreign(2)], (2, 21, 5)),
    "no-rdma": ([node(f"n{at}", netdevs=[netdev("eth0", 2, f"10.0.0.{at}/24")], routes=OUT) for at in (1, 2)], NEW),
    "nothing-known": ([NodeFacts("n1"), NodeFacts("n2")], NEW),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_and_its_plan(name: str, golden: Golden) -> None:
    """Each machine's plan is the one that was looked at."""
    nodes, version = MACHINES[name]
    golden(f"fabric/{name}.json", document(plan_fabric(nodes, version), "--nccl"))


def values(found: NodeFabric) -> dict[str, str]:
    """The settings of a node without those of the control plane's followers."""
    followers = {"GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "UCX_NET_DEVICES"}
    return {setting.name: setting.value for setting in found.settings if setting.name not in followers}


def each(nodes: Sequence[NodeFacts], version: tuple[int, ...] = NEW) -> list[dict[str, str]]:
    """The settings of each node."""
    return [values(found) for found in plan_fabric(nodes, version).nodes]


@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("spark-one-cable", "pair"),
        ("spark-two-cables", "pair"),
        ("spark-ring-of-3", "ring"),
        ("spark-ring-of-4", "ring"),
        ("spark-switch", "switch"),
        ("h100-infiniband", "pair"),
        ("link-local-only", "none"),
        ("no-rdma", "none"),
        ("nothing-known", "none"),
    ],
)
def test_the_shape(name: str, topology: str) -> None:
    """The subnets tell the shape of the fabric."""
    assert plan_fabric(*MACHINES[name]).topology == topology


def test_a_pair_needs_names_and_an_interface_only() -> None:
    """Two nodes and a cable: exact names, the bootstrap's interface, and no pinned slot."""
    expected = {"NCCL_IB_HCA": "=rocep1s0f1,roceP2p1s0f1", "NCCL_SOCKET_IFNAME": "=enp1s0f1np1"}
    assert each(ONE_CABLE) == [expected, expected]


def test_two_cables_are_not_fused() -> None:
    """NCCL would fuse the two cables of a card: it is told not to."""
    assert [found["NCCL_IB_MERGE_NICS"] for found in each(TWO_CABLES)] == ["0", "0"]


def test_a_ring_of_three() -> None:
    """A ring needs the network that knows the subnets, no fusion, and a bootstrap that reaches everyone."""
    expected = {
        "NCCL_IB_HCA": "=rocep1s0f0,rocep1s0f1,roceP2p1s0f0,roceP2p1s0f1",
        "NCCL_NET_PLUGIN": "none",
        "NCCL_IB_SUBNET_AWARE_ROUTING": "1",
        "NCCL_IB_MERGE_NICS": "0",
        "NCCL_SOCKET_IFNAME": "=enP7s7",
    }
    assert each(RING_3) == [expected] * 3


def test_what_a_ring_needs_is_said_where_it_is_set() -> None:
    """A setting that is there already is still part of the plan."""
    nodes = [replace(item, env={"NCCL_IB_MERGE_NICS": "0", "NCCL_NET_PLUGIN": "none"}) for item in RING_3]
    assert each(nodes) == each(RING_3)


def test_a_ring_of_four_follows_the_cables() -> None:
    """A longer ring runs the ring algorithm, with ranks in the order of the cables."""
    plan = plan_fabric(RING_4, NEW)
    assert plan.order == ("spark-1", "spark-3", "spark-2", "spark-4")
    assert [values(found)["NCCL_ALGO"] for found in plan.nodes] == ["Ring"] * 4


def test_link_layers_are_never_mixed() -> None:
    """Eight InfiniBand HCAs are used; the bond beside them, the slow and the idle port are not."""
    plan = plan_fabric([h100(1), h100(2)], NEW)
    names = ",".join(f"mlx5_{at}" for at in range(8))
    assert values(plan.nodes[0]) == {"NCCL_IB_HCA": f"={names}", "NCCL_SOCKET_IFNAME": "=bond0"}
    left = {row.device: row.why for row in plan.nodes[0].hcas if not row.usable}
    assert left == {
        "mlx5_bond_0": (
            "Ethernet beside 9 InfiniBand port(s): NCCL would mix the link layers, and the ranks could not connect"
        ),
        "mlx5_8": "100 Gb/s beside 400 Gb/s: less than half",
        "mlx5_9": "the port is DOWN, LinkUp",
    }


def test_a_storage_hca_beside_roce() -> None:
    """Where RoCE is the fabric, the lone InfiniBand HCA is left out."""
    nodes = [
        node(
            f"h200-{number}",
            [roce(f"mlx5_{at}", f"0000:{at + 1:02x}:00.0", f"eth{at}", f"10.{at}.0.{number}/24") for at in range(8)],
            devices=[infiniband("mlx5_8", "0000:c1:00.0")],
        )
        for number in (1, 2)
    ]
    assert each(nodes)[0]["NCCL_IB_HCA"] == "=" + ",".join(f"mlx5_{at}" for at in range(8))


def test_the_management_network_is_left_out() -> None:
    """An HCA with the default route is no fabric where others are there; alone, it is."""
    way_out = (Route("default", "eth0", "10.0.0.254"),)
    card, home = (
        roce("mlx5_1", "0000:02:00.0", "eth1", "192.168.100.1/24"),
        roce("mlx5_0", "0000:01:00.0", "eth0", "10.0.0.1/24"),
    )
    both = plan_fabric([node("n1", [home, card], routes=way_out)], NEW)
    alone = plan_fabric([node("n1", [home], routes=way_out)], NEW)
    found = [values(plan.nodes[0])["NCCL_IB_HCA"] for plan in (both, alone)]
    assert found == ["=mlx5_1", "=mlx5_0"]


def test_rails_without_a_route_between_them() -> None:
    """Rails that no route joins keep their rings apart; a gateway between them changes that."""
    rails = ("10.1.0", "10.2.0")

    def cluster(routes: tuple[Route, ...]) -> list[NodeFacts]:
        return [
            node(
                f"n{number}",
                [
                    roce(f"mlx5_{at}", f"0000:0{at}:00.0", f"eth{at}", f"{rail}.{number}/24")
                    for at, rail in enumerate(rails)
                ],
                routes=routes,
            )
            for number in (1, 2, 3)
        ]

    apart, joined = (plan_fabric(cluster(routes), NEW) for routes in ((), (Route("10.0.0.0/8", "eth0", "10.1.0.254"),)))
    assert [plan.topology for plan in (apart, joined)] == ["rail-only", "switch"]
    assert [values(plan.nodes[0]).get("NCCL_CROSS_NIC") for plan in (apart, joined)] == ["0", None]


def test_a_routed_fabric_of_single_links() -> None:
    """Where each port has a subnet of its own, and a gateway leads to the others, all ports are used."""
    nodes = [
        node(
            f"n{number}",
            [roce("mlx5_0", "0000:01:00.0", "eth1", f"10.1.0.{4 * number + 1}/30")],
            routes=(Route("10.0.0.0/8", "eth1", f"10.1.0.{4 * number + 2}"),),
        )
        for number in (1, 2, 3)
    ]
    plan = plan_fabric(nodes, NEW)
    assert (plan.topology, [values(found)["NCCL_IB_HCA"] for found in plan.nodes]) == ("switch", ["=mlx5_0"] * 3)


def test_a_node_on_no_rail() -> None:
    """A node that shares no subnet with the others is said to."""
    nodes = [*pair("mlx5_0", "mlx5_0"), node("n3", [roce("mlx5_0", "0000:01:00.0", "eth1", "10.9.9.3/24")])]
    plan = plan_fabric(nodes, NEW)
    assert (plan.topology, [found.hcas[0].chosen for found in plan.nodes]) == ("partial", [True, True, False])


def test_a_rail_that_reaches_some() -> None:
    """Beside a rail that reaches every node, one that does not is left out."""
    nodes = [
        node(
            f"n{number}",
            [
                roce("mlx5_0", "0000:01:00.0", "eth1", f"10.1.0.{number}/24"),
                roce("mlx5_1", "0000:02:00.0", "eth2", f"10.2.{number // 3}.{number}/24", index=9),
            ],
        )
        for number in (1, 2, 3)
    ]
    assert [found["NCCL_IB_HCA"] for found in each(nodes)] == ["=mlx5_0"] * 3


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, {}),
        ({"NCCL_IB_GID_INDEX": "3"}, {}),
        ({"NCCL_IB_GID_INDEX": "auto"}, {}),
        ({"NCCL_IB_GID_INDEX": "0"}, {"NCCL_IB_GID_INDEX": "-1"}),
        ({"NCCL_IB_ADDR_RANGE": "10.0.0.0/8"}, {"NCCL_IB_ADDR_RANGE": "192.168.100.0/24"}),
        ({"NCCL_IB_HCA": "mlx5_7"}, {}),
        ({"NCCL_NET_PLUGIN": "none"}, {}),
        ({"NCCL_NET_PLUGIN": PLUGIN}, {"NCCL_IB_GID_INDEX": "3"}),
        ({"NCCL_NET_PLUGIN": PLUGIN, "NCCL_IB_GID_INDEX": "3"}, {}),
        ({"NCCL_NET_PLUGIN": PLUGIN, "NCCL_IB_GID_INDEX": "2"}, {"NCCL_IB_GID_INDEX": "3"}),
    ],
)
def test_the_users_environment(env: dict[str, str], expected: dict[str, str]) -> None:
    """What the user set stands where it is right, and is set right where it is not."""
    names = {"NCCL_IB_HCA": "=mlx5_0", "NCCL_SOCKET_IFNAME": "=eth1"}
    assert each(pair("mlx5_0", "mlx5_0", env=env)) == [names | expected] * 2


@pytest.mark.parametrize(
    ("env", "index", "kind", "usable"),
    [
        ({}, 3, ROCE_V2, True),
        ({"NCCL_IB_GID_INDEX": "0"}, 0, ROCE_V1, True),
        ({"NCCL_IB_GID_INDEX": "true"}, 0, ROCE_V1, True),
        ({"NCCL_IB_GID_INDEX": "9"}, 9, None, True),
        ({"NCCL_IB_ROCE_VERSION_NUM": "1"}, 2, ROCE_V1, True),
        ({"NCCL_IB_HCA": "=mlx5_7"}, 3, ROCE_V2, False),
        ({"NCCL_IB_DISABLE": "1"}, 3, ROCE_V2, False),
        ({"NCCL_NET": "Socket"}, 3, ROCE_V2, False),
        ({"NCCL_NET_PLUGIN": PLUGIN}, None, None, True),
        ({"NCCL_NET_PLUGIN": PLUGIN, "NCCL_NET": "IB"}, 3, ROCE_V2, True),
        ({"NCCL_NET_PLUGIN": PLUGIN, "NCCL_IB_GID_INDEX": "2"}, 2, ROCE_V1, True),
    ],
)
def test_the_prediction_in_the_environment_in_force(
    env: dict[str, str], index: int | None, kind: str | None, usable: bool
) -> None:
    """The row says what NCCL will use in this environment."""
    row = plan_fabric(pair("mlx5_0", "mlx5_0", env=env), NEW).nodes[0].hcas[0]
    assert (row.gid_index, row.gid_type, row.usable) == (index, kind, usable)


def test_what_is_set_so_already_needs_no_undo() -> None:
    """An undo that sets the very value would be none."""
    found = plan_fabric(pair("mlx5_0", "mlx5_0", env={"NCCL_IB_HCA": "=mlx5_0"}), NEW).nodes[0]
    assert (found.settings[0].value, found.settings[0].undo) == ("=mlx5_0", "nothing: it is set so already")


def test_a_filter_that_matches_nothing() -> None:
    """NCCL would fall back to sockets without a word: the plan says it, and names what is there."""
    found = plan_fabric(pair("mlx5_0", "mlx5_0", env={"NCCL_IB_HCA": "=mlx5_7"}), NEW).nodes[0]
    assert found.hcas[0].why == "NCCL_IB_HCA==mlx5_7 leaves it out"
    assert found.settings[0].undo == "NCCL_IB_HCA==mlx5_7"
    assert "NCCL_IB_HCA==mlx5_7 matches no usable port: NCCL would use sockets without a word" in found.notes


def test_a_filter_that_matches_some() -> None:
    """The user's choice among the ports stands, by exact names."""
    cards = [roce(f"mlx5_{at}", f"0000:0{at}:00.0", f"eth{at}", f"10.{at}.0.1/24", index=3 + at) for at in (1, 2)]
    assert each([node("n1", cards, env={"NCCL_IB_HCA": "mlx5_2"})])[0]["NCCL_IB_HCA"] == "=mlx5_2"


def test_the_index_of_an_old_nccl_is_each_nodes_own() -> None:
    """Before 2.21 each node pins its own slot."""
    found = each([shifted(1), shifted(2)], OLD)
    assert [item["NCCL_IB_GID_INDEX"] for item in found] == ["3", "5"]


def test_an_old_nccl_with_two_slots() -> None:
    """One slot for all ports of a node: the port whose slot is another one is left out, and that is said."""
    cards = [
        roce("mlx5_0", "0000:01:00.0", "eth1", "10.1.0.1/24"),
        roce("mlx5_1", "0000:02:00.0", "eth2", "10.2.0.1/24", index=5),
        roce(
            "mlx5_2",
            "0000:03:00.0",
            "eth3",
            index=7,
            gids=table([(FE80, "eth3"), (FE80, "eth3"), ("10.3.0.1", "eth3")]),
        ),
    ]
    found = plan_fabric([node("n1", cards)], OLD).nodes[0]
    assert values(found) == {
        "NCCL_IB_HCA": "=mlx5_0,mlx5_1",
        "NCCL_IB_GID_INDEX": "3",
        "NCCL_SOCKET_IFNAME": "=eth1",
    }
    assert found.notes[0].startswith("mlx5_2: left out")


def test_a_range_where_the_first_slot_is_on_no_rail() -> None:
    """Where the first address is no one else's, a range names the rail."""
    assert [found["NCCL_IB_ADDR_RANGE"] for found in each([vlan(1), vlan(2)])] == ["192.168.100.0/24"] * 2


def test_vllm_host_ip_decides_the_control_plane() -> None:
    """The interface that has VLLM_HOST_IP carries the bootstrap."""
    nodes = [replace(item, env={"VLLM_HOST_IP": f"10.0.0.{at}"}) for at, item in enumerate(ONE_CABLE, 1)]
    assert [found["NCCL_SOCKET_IFNAME"] for found in each(nodes)] == ["=enP7s7"] * 2


def test_vllm_host_ip_that_is_nowhere() -> None:
    """An address that no interface has is said, and the plan goes on without it."""
    found = plan_fabric([replace(ONE_CABLE[0], env={"VLLM_HOST_IP": "1.2.3.4"})], NEW).nodes[0]
    setting = next(item for item in found.settings if item.name == "NCCL_SOCKET_IFNAME")
    assert (setting.value, setting.confidence) == ("=enp1s0f1np1", "medium")
    assert "VLLM_HOST_IP=1.2.3.4 is on no interface" in setting.reason


def test_docker_bridges_are_no_control_plane() -> None:
    """Every node has the same Docker network, and no node reaches another by it."""
    nodes = [
        node(f"n{at}", netdevs=[netdev("docker0", 2, "172.17.0.1/16"), netdev("eth0", 3, f"10.0.0.{at}/24")])
        for at in (1, 2)
    ]
    assert each(nodes) == [{"NCCL_SOCKET_IFNAME": "=eth0"}] * 2


def test_one_node_without_rdma_among_others() -> None:
    """Where one node has no usable port, all use sockets: NCCL cannot mix."""
    nodes = [*pair("mlx5_0", "mlx5_0"), node("n3", netdevs=[netdev("eth1", 3, "192.168.100.3/24")])]
    disabled = {"NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "=eth1"}
    assert each(nodes) == [disabled, disabled, {"NCCL_SOCKET_IFNAME": "=eth1"}]


def test_devices_that_cannot_be_opened() -> None:
    """A device without its node in /dev/infiniband, or that may not be opened, is of no use."""
    there = pair("mlx5_0", "mlx5_0")[0]
    gone = replace(there, rdma=replace(there.rdma, nodes=("rdma_cm",)))
    shut = replace(there, rdma=replace(there.rdma, nodes=("uverbs3",), unopenable={"uverbs3": "EACCES"}))
    found = [plan_fabric([item], NEW).nodes[0].hcas[0] for item in (gone, shut)]
    assert [(row.usable, row.why) for row in found] == [
        (False, "/dev/infiniband/uverbs3 is not there: NCCL cannot open the device"),
        (False, "/dev/infiniband/uverbs3 cannot be opened (EACCES)"),
    ]


def test_an_interface_that_is_down() -> None:
    """A port whose interface is down, or has no carrier, is of no use."""
    there = pair("mlx5_0", "mlx5_0")[0]
    dev = netdev("eth1", 3, "192.168.100.1/24")
    found = []
    for change in ({"up": False}, {"carrier": False}, {"operstate": "lowerlayerdown"}):
        facts = replace(there, net=NetFacts(netdevs=(replace(dev, **change),)))  # type: ignore[arg-type]
        found.append(plan_fabric([facts], NEW).nodes[0].hcas[0].why)
    assert found == ["eth1 is down", "eth1 is without carrier", "eth1 is lowerlayerdown"]


def test_infiniband_without_a_subnet_manager() -> None:
    """A port without a LID cannot be reached."""
    row = plan_fabric([node("n1", devices=[infiniband("mlx5_0", "0000:01:00.0", lid=0)])], NEW).nodes[0].hcas[0]
    assert (row.usable, row.why) == (False, "no LID: no subnet manager has configured the port")


def test_what_is_not_known_stays_not_known() -> None:
    """A port of which only the name is known is neither usable nor broken."""
    device = replace(infiniband("mlx5_0", "0000:01:00.0"), ports=(infiniband("x", "").ports[0].__class__(1),))
    row = plan_fabric([node("n1", devices=[device])], NEW).nodes[0].hcas[0]
    assert (row.state, row.gid_index, row.usable, row.why) == (None, None, None, "the port's state is not known")


def test_names_with_ports() -> None:
    """A device with two ports is named with the port that is used."""
    device, dev = roce("mlx4_0", "0000:05:00.0", "eth1", "192.168.100.1/24")
    second = replace(device.ports[0], number=2, state="DOWN")
    assert (
        each([node("n1", [(replace(device, ports=(device.ports[0], second)), dev)])])[0]["NCCL_IB_HCA"] == "=mlx4_0:1"
    )


def test_every_setting_says_why_and_how_to_take_it_back() -> None:
    """No setting is without reason, evidence and undo."""
    plans = [plan_fabric(*machine) for machine in MACHINES.values()]
    bare = [
        (found.name, setting.name)
        for plan in plans
        for found in plan.nodes
        for setting in found.settings
        if not (setting.reason and setting.evidence and setting.undo)
    ]
    assert bare == []


PORT = "/sys/class/infiniband/mlx5_0/ports/1"
FILES = st.dictionaries(
    st.sampled_from(
        [
            *(f"{PORT}/{name}" for name in ("state", "phys_state", "link_layer", "rate", "lid")),
            *(f"{PORT}/{part}/{at}" for part in ("gids", "gid_attrs/types", "gid_attrs/ndevs") for at in (0, 1, 7)),
            "/sys/class/infiniband/mlx5_1/ports/2/state",
            *(f"/sys/class/net/eth1/{name}" for name in ("mtu", "operstate", "carrier", "flags", "ifindex", "type")),
        ]
    ),
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["4: ACTIVE", "5: LinkUp", "Ethernet", "InfiniBand", "200 Gb/sec (4X HDR)", "eth1", "up", "9000"]
        ),
        st.sampled_from([ROCE_V1, ROCE_V2, FE80, mapped("192.168.100.1"), f"{FE80}%eth1", "fd00::1", "0"]),
    ),
)
ADDRESSES = st.sampled_from(
    [
        "",
        "not json",
        json.dumps([{"ifname": "eth1", "addr_info": [{"family": "inet", "local": "192.168.100.1", "prefixlen": 24}]}]),
        json.dumps([{"ifname": "eth1", "addr_info": [{"family": "inet", "local": "x", "prefixlen": 99}]}]),
    ]
)
SET = st.dictionaries(
    st.sampled_from(["NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_NET_PLUGIN", "VLLM_HOST_IP", "NCCL_IB_ADDR_RANGE"]),
    st.one_of(
        st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12), st.just("192.168.100.1")
    ),
)


@given(st.lists(st.tuples(FILES, ADDRESSES, SET), max_size=3), st.sampled_from([(2, 18), OLD, (2, 21), NEW, (2, 32)]))
def test_no_tree_makes_it_raise(
    trees: list[tuple[dict[str, str], str, dict[str, str]]], version: tuple[int, ...]
) -> None:
    """Whatever the files of a machine hold, there is a plan for it, and it is a JSON document."""
    nodes = [
        node_facts(
            Snapshot(
                "n",
                files=files,
                replies={
                    "ip -j addr": Reply(0, told),
                    "env": Reply(0, "\n".join(f"{name}={value}" for name, value in env.items())),
                },
            )
        )
        for files, told, env in trees
    ]
    found = document(plan_fabric(nodes, version), "--nccl")
    assert [item["name"] for item in json.loads(json.dumps(found))["nodes"]] == ["n"] * len(trees)


def test_no_nodes() -> None:
    """No nodes, no plan, no error."""
    assert plan_fabric([], NEW) == Fabric(NEW, "none", ())


def test_a_gb10_is_told_of_gpudirect() -> None:
    """What NCCL says of GPUDirect on a GB10 is normal there."""
    notes = plan_fabric(ONE_CABLE, NEW).nodes[0].notes
    plain = plan_fabric([replace(ONE_CABLE[0], gpu=GpuFacts(), rdma=RdmaFacts(devices=()))], NEW).nodes[0].notes
    assert ("GB10" in " ".join(notes), "GB10" in " ".join(plain)) == (True, False)


def test_nodes_that_would_fuse_differently() -> None:
    """Where one node has a card with two ports and the other two cards, nobody fuses; and the counts are compared."""
    rails = (("mlx5_0", "eth1", "10.1.0"), ("mlx5_1", "eth2", "10.2.0"))

    def built(number: int, addresses: tuple[str, str]) -> NodeFacts:
        cards = [
            roce(name, pci, dev, f"{rail}.{number}/24", index=at, guid=pci[:-1])
            for at, ((name, dev, rail), pci) in enumerate(zip(rails, addresses, strict=True), 3)
        ]
        return node(f"n{number}", cards)

    one_card, two_cards = ("0000:01:00.0", "0000:01:00.1"), ("0000:01:00.0", "0000:02:00.0")
    found = [
        [item.get("NCCL_IB_MERGE_NICS") for item in each([built(1, one_card), built(2, other)])]
        for other in (one_card, two_cards)
    ]
    assert found == [[None, None], ["0", "0"]]


def test_nodes_with_different_numbers_of_ports() -> None:
    """A node with fewer ports on the rails is told of."""
    nodes = [
        node(
            "n1",
            [
                roce("mlx5_0", "0000:01:00.0", "eth1", "10.1.0.1/24"),
                roce("mlx5_1", "0000:02:00.0", "eth2", "10.1.0.3/24"),
            ],
        ),
        node("n2", [roce("mlx5_0", "0000:01:00.0", "eth1", "10.1.0.2/24")]),
    ]
    words = "the nodes use different numbers of ports (2, 1): NCCL wants the same everywhere"
    assert [words in found.notes for found in plan_fabric(nodes, NEW).nodes] == [True, True]
