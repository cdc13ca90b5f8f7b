"""Which devices and interfaces NCCL takes, which it fuses, and which network it uses."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.facts.net import Address, Netdev, NetFacts
from shoal.facts.rdma import ETHERNET, INFINIBAND, RdmaDevice, RdmaPort
from shoal.nccl import hca, merge, socket
from shoal.nccl.defaults import MOVED, default
from shoal.nccl.environment import atoi, effective, integer
from shoal.nccl.lists import NameList, parse
from shoal.nccl.network import Network, network
from shoal.nccl.variables import VARIABLES

NEW, OLD = (2, 30, 7), (2, 21, 5)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 20),
        ("", 20),
        ("3", 3),
        (" 7", 7),
        ("-1", -1),
        ("0x10", 16),
        ("010", 8),
        ("08", 0),
        ("3 slots", 3),
        ("true", 0),
        ("9" * 40, 20),
        ("0x", 0),
    ],
)
def test_integers_as_nccl_reads_them(text: str | None, number: int) -> None:
    """NCCL reads with strtoll: rubbish is 0, and what does not fit is the default."""
    assert integer(text, 20) == number


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("x", 0), ("12abc", 12), ("-3", -3), ("", 0)])
def test_ports_as_nccl_reads_them(text: str, number: int) -> None:
    """Ports are read with atoi."""
    assert atoi(text) == number


def test_the_environment_that_nccl_finds() -> None:
    """The environment goes over the configuration file; what is empty or auto is not set."""
    found = effective(
        {"NCCL_IB_HCA": "", "NCCL_IB_TC": "106", "NCCL_IB_GID_INDEX": "auto"}, {"NCCL_IB_TC": "0", "NCCL_IB_SL": "3"}
    )
    assert found == {"NCCL_IB_TC": "106", "NCCL_IB_SL": "3"}


NAMES = ("mlx5_0", "mlx5_1", "mlx5_10", "rocep1s0f1")


@pytest.mark.parametrize(
    ("text", "new", "old"),
    [
        (None, NAMES, NAMES),
        ("", NAMES, NAMES),
        ("mlx5_1", ("mlx5_1", "mlx5_10"), ("mlx5_1", "mlx5_10")),
        ("=mlx5_1", ("mlx5_1",), ("mlx5_1",)),
        ("^mlx5_1", ("mlx5_0", "rocep1s0f1"), ("mlx5_0", "rocep1s0f1")),
        ("^=mlx5_1", ("mlx5_0", "mlx5_10", "rocep1s0f1"), ("mlx5_0", "mlx5_10", "rocep1s0f1")),
        # The signs in the wrong order: the older parser drops the second one, the newer takes it for a name.
        ("=^mlx5_1", (), ("mlx5_1",)),
        ("^", (), ()),
        ("=", NAMES, NAMES),
        ("=mlx5_0:1,rocep1s0f1:1", ("mlx5_0", "rocep1s0f1"), ("mlx5_0", "rocep1s0f1")),
        ("=mlx5_0:2", (), ()),
        ("=mlx5_0:", ("mlx5_0",), ()),
        ("=mlx5_0::3", ("mlx5_0",), ()),
        ("=mlx5_0,,mlx5_1", ("mlx5_0", "mlx5_1"), ("mlx5_0", "mlx5_1")),
        ("= mlx5_0", (), ()),
    ],
)
def test_the_names_that_a_list_takes(text: str | None, new: tuple[str, ...], old: tuple[str, ...]) -> None:
    """Names match by their beginning unless ``=`` stands in front, and ``^`` turns the list round."""
    taken = [tuple(name for name in NAMES if parse(text, version, 32).takes(name, 1)) for version in (NEW, OLD)]
    assert taken == [new, old]


def test_rails_and_planes() -> None:
    """From 2.30 on an entry may say rail and plane."""
    listed = parse("=mlx5_0:1:2:3,mlx5_1::4", NEW, 32)
    assert [(entry.port, entry.rail, entry.plane) for entry in listed.entries] == [(1, 2, 3), (-1, 4, -1)]


def port(number: int = 1, layer: str = ETHERNET, state: str | None = "ACTIVE") -> RdmaPort:
    """A port."""
    return RdmaPort(number, state, "LinkUp" if state == "ACTIVE" else "Polling", layer)


def test_only_active_ports_of_either_link_layer() -> None:
    """NCCL takes ACTIVE ports of InfiniBand and of Ethernet together, and says nothing of the mix."""
    devices = (
        RdmaDevice("mlx5_0", (port(layer=INFINIBAND),), pci="0000:18:00.0"),
        RdmaDevice("mlx5_1", (port(state="DOWN"),), pci="0000:19:00.0"),
        RdmaDevice("mlx5_2", (port(), port(2)), pci="0000:17:00.0"),
        RdmaDevice("mlx5_3", (port(state=None),), pci="0000:20:00.0"),
    )
    seen = hca.ports(devices, NEW, {})
    assert [(item.key, item.taken, item.why) for item in seen] == [
        (("mlx5_2", 1), True, ""),
        (("mlx5_2", 2), True, ""),
        (("mlx5_0", 1), True, ""),
        (("mlx5_1", 1), False, "the port is DOWN, Polling"),
        (("mlx5_3", 1), None, "the port's state is not known"),
    ]


def test_the_order_of_devices() -> None:
    """NCCL orders by PCI address from 2.29.7 on, unless it is told not to."""
    devices = (RdmaDevice("a", (port(),), pci="0000:19:00.0"), RdmaDevice("b", (port(),), pci="0000:18:00.0"))
    orders = [
        [item.device.name for item in hca.ports(devices, version, env)]
        for version, env in (((2, 29, 7), {}), ((2, 29, 2), {}), (NEW, {"NCCL_IB_DEVICE_PCI_ORDER": "0"}))
    ]
    assert orders == [["b", "a"], ["a", "b"], ["a", "b"]]


def test_at_most_32_ports() -> None:
    """The 33rd port is left out."""
    devices = tuple(RdmaDevice(f"mlx5_{number:02}", (port(),)) for number in range(34))
    assert [item.taken for item in hca.ports(devices, OLD, {})] == [True] * 32 + [False] * 2


SPARK = (
    RdmaDevice("rocep1s0f0", (port(),), pci="0000:01:00.0", sys_image_guid="a"),
    RdmaDevice("rocep1s0f1", (port(),), pci="0000:01:00.1", sys_image_guid="a"),
    RdmaDevice("roceP2p1s0f0", (port(),), pci="0002:01:00.0", sys_image_guid="a"),
    RdmaDevice("roceP2p1s0f1", (port(),), pci="0002:01:00.1", sys_image_guid="a"),
)
CABLES = [["rocep1s0f0", "rocep1s0f1"], ["roceP2p1s0f0", "roceP2p1s0f1"]]
APART = [["rocep1s0f0"], ["rocep1s0f1"], ["roceP2p1s0f0"], ["roceP2p1s0f1"]]
VFS = tuple(RdmaDevice(f"mlx5_{n}", (port(),), pci=f"0000:3b:{n:02x}.0", sys_image_guid="b") for n in range(6))
CARDS = tuple(RdmaDevice(f"mlx5_{n}", (port(),), pci=f"0000:3b:00.{n}", sys_image_guid=str(n)) for n in range(2))
MIXED = (
    RdmaDevice("mlx5_0", (port(layer=INFINIBAND),), pci="0000:3b:00.0", sys_image_guid="c"),
    RdmaDevice("mlx5_1", (port(),), pci="0000:3b:00.1", sys_image_guid="c"),
)


def fused(devices: tuple[RdmaDevice, ...], version: tuple[int, ...], env: dict[str, str]) -> list[list[str]]:
    """Names of the devices that NCCL fuses, in groups."""
    groups = merge.groups(hca.ports(devices, version, env), version, env)
    return [[item.device.name for item in group] for group in groups]


@pytest.mark.parametrize(
    ("devices", "version", "env", "expected"),
    [
        # The two cables of a DGX Spark become one device; the two halves of one cable never do.
        (SPARK, NEW, {}, CABLES),
        (SPARK, (2, 30, 7), {"NCCL_IB_MERGE_NICS": "0"}, APART),
        (SPARK, NEW, {"NCCL_NET_MERGE_LEVEL": "LOC"}, APART),
        (SPARK, NEW, {"NCCL_IB_HCA": "=rocep1s0f1,roceP2p1s0f1"}, [["rocep1s0f1"], ["roceP2p1s0f1"]]),
        (VFS, NEW, {}, [["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"], ["mlx5_4", "mlx5_5"]]),
        (VFS, NEW, {"NCCL_IB_MERGE_VFS": "0"}, [[item.name] for item in VFS]),
        (VFS, OLD, {}, [["mlx5_0", "mlx5_1"], ["mlx5_2", "mlx5_3"], ["mlx5_4", "mlx5_5"]]),
        (VFS, (2, 26, 2), {}, [[item.name] for item in VFS]),
        (VFS, (2, 19, 4), {}, [[item.name] for item in VFS]),
        # Two cards in one slot: up to 2.23 their guid tells them apart.
        (CARDS, OLD, {}, [["mlx5_0"], ["mlx5_1"]]),
        (CARDS, NEW, {}, [["mlx5_0", "mlx5_1"]]),
        (MIXED, OLD, {}, [["mlx5_0"], ["mlx5_1"]]),
        (MIXED, NEW, {}, [["mlx5_0"], ["mlx5_1"]]),
        (
            SPARK,
            NEW,
            {"NCCL_NET_FORCE_MERGE": "rocep1s0f0,roceP2p1s0f0;rocep1s0f1,roceP2p1s0f1"},
            [["rocep1s0f0", "roceP2p1s0f0"], ["rocep1s0f1", "roceP2p1s0f1"]],
        ),
    ],
)
def test_what_nccl_fuses(
    devices: tuple[RdmaDevice, ...], version: tuple[int, ...], env: dict[str, str], expected: list[list[str]]
) -> None:
    """Ports of one PCI device become one network device, whatever they are cabled to."""
    assert fused(devices, version, env) == expected


def test_a_device_with_two_ports() -> None:
    """Two ports of one device are fused too."""
    device = RdmaDevice("mlx4_0", (port(layer=INFINIBAND), port(2, INFINIBAND)), pci="0000:05:00.0", sys_image_guid="d")
    groups = [merge.groups(hca.ports((device,), version, {}), version, {}) for version in (OLD, NEW)]
    assert [[item.port.number for item in group] for found in groups for group in found] == [[1, 2], [1, 2]]


def dev(name: str, index: int, *addresses: str, running: bool | None = True) -> Netdev:
    """An interface with addresses in the form 10.0.0.1/24."""
    pairs = (text.split("/") for text in addresses)
    return Netdev(name, index, running=running, addresses=tuple(Address(ip, int(prefix)) for ip, prefix in pairs))


LO, DOCKER = dev("lo", 1, "127.0.0.1/8", "::1/128"), dev("docker0", 4, "172.17.0.1/16")
ETH, FAST, IB = dev("eth0", 2, "10.0.0.2/24"), dev("enp1s0f1np1", 3, "192.168.100.2/24"), dev("ib0", 9, "10.9.0.2/24")
VIRBR = dev("virbr0", 5, "192.168.122.1/24")


@pytest.mark.parametrize(
    ("devices", "version", "env", "name", "address"),
    [
        ((LO, DOCKER, FAST, ETH), NEW, {}, "eth0", "10.0.0.2"),
        ((LO, DOCKER, FAST, ETH, IB), NEW, {}, "ib0", "10.9.0.2"),
        ((LO, DOCKER, FAST, ETH), NEW, {"NCCL_COMM_ID": "192.168.100.1:2000"}, "enp1s0f1np1", "192.168.100.2"),
        ((LO, DOCKER, FAST, ETH, IB), NEW, {"NCCL_COMM_ID": "192.168.100.1:2000"}, "ib0", "10.9.0.2"),
        ((LO, DOCKER, FAST, ETH), NEW, {"NCCL_SOCKET_IFNAME": "=enp1s0f1np1"}, "enp1s0f1np1", "192.168.100.2"),
        ((LO, DOCKER, FAST, ETH), NEW, {"NCCL_SOCKET_IFNAME": "^eth"}, "lo", "127.0.0.1"),
        ((LO, DOCKER, FAST, ETH), NEW, {"NCCL_SOCKET_IFNAME": "=enp1s0f1"}, None, None),
        ((LO, DOCKER, FAST, ETH), NEW, {"NCCL_SOCKET_IFNAME": "e"}, "eth0", "10.0.0.2"),
        ((LO, DOCKER), NEW, {}, "docker0", "172.17.0.1"),
        ((LO,), NEW, {}, "lo", "127.0.0.1"),
        ((LO, VIRBR), NEW, {}, "lo", "127.0.0.1"),
        ((LO, VIRBR), (2, 26, 2), {}, "virbr0", "192.168.122.1"),
        ((dev("eth0", 2, "10.0.0.2/24", running=False), FAST), NEW, {}, "enp1s0f1np1", "192.168.100.2"),
        ((dev("eth0", 2, "10.0.0.2/24", running=False), FAST), (2, 26, 2), {}, "eth0", "10.0.0.2"),
        ((dev("a6", 2, "fd00::1/64"), FAST), NEW, {}, "enp1s0f1np1", "192.168.100.2"),
        ((dev("a6", 2, "fd00::1/64"), FAST), NEW, {"NCCL_SOCKET_FAMILY": "AF_INET6"}, "a6", "fd00::1"),
        ((), NEW, {}, None, None),
        ((Netdev("eth0"),), NEW, {}, None, None),
    ],
)
def test_the_interface_of_nccls_sockets(
    devices: tuple[Netdev, ...], version: tuple[int, ...], env: dict[str, str], name: str | None, address: str | None
) -> None:
    """ib* first, then the subnet of NCCL_COMM_ID, then anything but docker, lo and virbr, then these."""
    chosen = socket.choose(NetFacts(devices), version, env)
    assert (chosen.name, chosen.address) == (name, address)


@pytest.mark.parametrize(
    ("env", "plugin", "kind"),
    [
        ({}, None, "internal"),
        ({}, "", "internal"),
        ({}, "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so", "plugin"),
        ({"NCCL_NET_PLUGIN": "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so"}, None, "plugin"),
        ({"NCCL_NET_PLUGIN": "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so"}, "", "internal"),
        ({"NCCL_NET_PLUGIN": "none"}, "/opt/x.so", "internal"),
        ({"NCCL_NET": "ib"}, "/opt/x.so", "internal"),
        ({"NCCL_NET": "Socket"}, "/opt/x.so", "socket"),
        ({"NCCL_NET": "AWS Libfabric"}, None, "plugin"),
        ({"NCCL_IB_DISABLE": "1"}, None, "socket"),
        ({"NCCL_IB_DISABLE": "true"}, None, "internal"),
        ({"NCCL_IB_DISABLE": "1"}, "/opt/hpcx/libnccl-net.so", "plugin"),
        ({"NCCL_IBEXT_DISABLE": "1"}, "/opt/hpcx/libnccl-net.so", "internal"),
        ({"NCCL_IBEXT_DISABLE": "1"}, "/opt/aws-ofi/libnccl-net.so", "plugin"),
    ],
)
def test_the_network_that_nccl_uses(env: dict[str, str], plugin: str | None, kind: str) -> None:
    """A plugin chooses in NCCL's place, unless it is left out, is not there, or NCCL_NET names another network."""
    assert network(env, plugin).kind == kind


def test_why_a_plugin_is_used() -> None:
    """The reason names what brought the plugin in."""
    assert network({"NCCL_NET_PLUGIN": "ofi"}, None) == Network("plugin", "NCCL_NET_PLUGIN=ofi")


@pytest.mark.parametrize(
    ("name", "version", "value"),
    [
        ("NCCL_IB_TIMEOUT", (2, 13), 14),
        ("NCCL_IB_TIMEOUT", (2, 22, 3), 18),
        ("NCCL_IB_TIMEOUT", (2, 23), 20),
        ("NCCL_IB_TC", (2, 25, 1), 0),
        ("NCCL_IB_TC", (2, 26, 2), -1),
        ("NCCL_IB_MERGE_NICS", (2, 19, 4), None),
        ("NCCL_IB_SPLIT_DATA_ON_QPS", (2, 20), 0),
        ("NCCL_NET_GDR_C2C", (2, 27, 3), 1),
        ("NCCL_IB_SUBNET_AWARE_ROUTING", (2, 30, 3), None),
        ("NCCL_IB_SUBNET_AWARE_ROUTING", (2, 30), 0),
        ("NCCL_IB_HCA", (2, 30), None),
    ],
)
def test_defaults_that_moved(name: str, version: tuple[int, ...], value: int | None) -> None:
    """A default is the one of the version; X.Y is its newest patch."""
    assert default(name, version) == value


def test_the_table_of_defaults() -> None:
    """Each variable with a default is one of NCCL's, and its versions rise."""
    unknown = [name for name in MOVED if name not in VARIABLES]
    unordered = [name for name, rows in MOVED.items() if any(a[0] >= b[0] for a, b in pairwise(rows))]
    assert (unknown, unordered) == ([], [])


@given(st.text(max_size=40), st.sampled_from([NEW, OLD]), st.text(max_size=12), st.integers(-1, 3))
def test_no_list_makes_it_raise(text: str, version: tuple[int, ...], name: str, number: int) -> None:
    """Whatever a list holds, each name is taken or not."""
    listed = parse(text, version, 32)
    assert isinstance(listed, NameList)
    assert listed.takes(name, number) in {True, False}
