"""Examples for the group rdma: an InfiniBand host with eight cards, and the same with one thing wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.unit.checks.examples import FAIL, OK, SKIP, UNKNOWN, WARN, changed, examples, node

from shoal.facts.container import ContainerFacts
from shoal.facts.gpu import Gpu, GpuFacts
from shoal.facts.machine import MachineFacts
from shoal.facts.net import Netdev, NetFacts
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice, RdmaFacts, RdmaPort

GEN5 = "32.0 GT/s PCIe"


def guid(number: int) -> str:
    """A GUID of NVIDIA's range."""
    return f"a088:c203:00aa:00{number:02x}"


def card(number: int, **port: Any) -> RdmaDevice:
    """One ConnectX-7 of the host."""
    state = {
        "state": "ACTIVE",
        "phys_state": "LinkUp",
        "link_layer": "InfiniBand",
        "rate_gbps": 400.0,
        "rate_text": "400 Gb/sec (4X NDR)",
        "lid": 10 + number,
        "sm_lid": 1,
        "counters": {"link_downed": 0, "port_rcv_errors": 0, "symbol_error": 0},
        "hw_counters": {"duplicate_request": 0},
    }
    return RdmaDevice(
        f"mlx5_{number}",
        ports=(RdmaPort(1, **{**state, **port}),),
        pci=f"0000:{16 + number:02x}:00.0",
        netdevs=(f"ibs{number}",),
        driver="mlx5_core",
        vendor="0x15b3",
        fw_ver="28.42.1000",
        board_id="MT_0000000838",
        hca_type="MT4129",
        node_guid=guid(number),
        sys_image_guid=guid(number),
        numa_node=number // 4,
        is_vf=False,
        link_speed=GEN5,
        link_width=16,
        max_link_speed=GEN5,
        max_link_width=16,
        uverbs=f"uverbs{number}",
    )


CARDS = tuple(card(number) for number in range(8))
STORAGE = replace(
    card(8, link_layer="Ethernet", rate_gbps=100.0, rate_text="100 Gb/sec (4X EDR)", lid=0, sm_lid=0),
    netdevs=("ens8np0",),
    board_id="MT_0000000437",
    hca_type="MT4125",
)
HOST = node(
    rdma=RdmaFacts(
        devices=CARDS,
        nodes=(*(f"uverbs{n}" for n in range(8)), *(f"umad{n}" for n in range(8)), "rdma_cm"),
        netns_mode="shared",
        cards={item.pci or "": "0x15b3" for item in CARDS},
        card_drivers={item.pci or "": "mlx5_core" for item in CARDS},
    ),
    machine=MachineFacts(product="DGXH100", virtual="", numa_nodes=2, kernel_log=("mlx5_core 0000:10:00.0: firmware",)),
    gpu=GpuFacts(
        gpus=(Gpu(0, "NVIDIA H100 80GB HBM3", 81559, numa_node=0), Gpu(1, "NVIDIA H100 80GB HBM3", 81559, numa_node=1))
    ),
    container=ContainerFacts(inside="", libibverbs="/lib/libibverbs.so.1", providers=("libmlx5-rdmav34.so",)),
    net=NetFacts(netdevs=()),
    env={},
)
INSIDE = changed(HOST, container={"inside": "docker", "host_network": True})
LAPTOP = node(rdma=RdmaFacts(devices=(), cards={"0000:02:00.0": "0x8086"}), machine=MachineFacts(virtual=""), env={})
NOTHING = node()
ROCE = changed(
    HOST,
    rdma={"devices": (STORAGE,)},
    net={
        "netdevs": (
            Netdev("ens8np0", operstate="up", carrier=True, carrier_changes=1, statistics={"rx_crc_errors": 0}),
        )
    },
)
SPARK = changed(HOST, machine={"product": "NVIDIA_DGX_Spark"}, gpu={"gpus": (Gpu(0, "NVIDIA GB10", None),)})


def of(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its RDMA facts replaced."""
    return changed(base, rdma=fields)


def devices(change: Callable[[RdmaDevice], RdmaDevice], base: NodeFacts = HOST) -> NodeFacts:
    """The host with the last device changed."""
    mine = base.rdma.devices or ()
    return of(base, devices=(*mine[:-1], change(mine[-1])))


def device(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its last device replaced."""
    return devices(lambda item: replace(item, **fields), base)


def port(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its last device's port replaced."""
    return devices(lambda item: replace(item, ports=(replace(item.ports[0], **fields),)), base)


def every(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of all ports replaced."""
    mine = tuple(replace(item, ports=(replace(item.ports[0], **fields),)) for item in base.rdma.devices or ())
    return of(base, devices=mine)


def machine(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its machine replaced."""
    return changed(base, machine=fields)


def env(base: NodeFacts = HOST, **variables: str) -> NodeFacts:
    """The host with this environment."""
    return replace(base, env=variables)


def log(*lines: str, base: NodeFacts = HOST) -> NodeFacts:
    """The host with these lines in its kernel log."""
    return machine(base, kernel_log=lines)


def counted(name: str, value: int, at: float, base: NodeFacts = HOST) -> NodeFacts:
    """The host with one counter of its last port at this value, read at this time."""
    return machine(port(base, counters={name: value}), clock=at)


def grown(name: str, before: int, after: int, base: NodeFacts = HOST) -> NodeFacts:
    """The host read twice, ten seconds apart."""
    return replace(counted(name, after, 1010.0, base), before=counted(name, before, 1000.0, base))


def interface(name: str, value: int, at: float) -> NodeFacts:
    """The Ethernet host with one counter of its interface at this value."""
    netdev = (ROCE.net.netdevs or ())[0]
    own = {"carrier_changes": value} if name == "carrier_changes" else {"ethtool": {name: value}}
    return machine(changed(ROCE, net={"netdevs": (replace(netdev, **own),)}), clock=at)


def counter(name: str, much: int) -> dict[Any, Any]:
    """Examples for one counter of ports: none, few, many, one reading, not read."""
    return {
        OK: [counted(name, 0, 1.0), grown(name, 7, 7)],
        FAIL if much == 1 else WARN: grown(name, 7, 7 + much),
        SKIP: [LAPTOP, counted(name, 7, 1.0)],
        UNKNOWN: [NOTHING, port(every(counters={}, hw_counters={}), counters={})],
    }


def statistic(name: str, few: int, much: int) -> dict[Any, Any]:
    """Examples for one counter of interfaces."""
    first, second = interface(name, 7, 1000.0), interface(name, 7 + much, 1010.0)
    return {
        OK: [interface(name, 0, 1.0), replace(interface(name, 7 + few, 1010.0), before=first)],
        WARN: replace(second, before=first),
        SKIP: [LAPTOP, first],
        UNKNOWN: [HOST, NOTHING],
    }


NO_LINK = {"state": "DOWN", "phys_state": "Polling", "rate_gbps": 10.0}
SLOT = "mlx5_core 0000:17:00.0: 63.008 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x8 link at 0000:00:01.0"
POWER = "mlx5_core 0000:17:00.0: mlx5_pcie_event:301:(pid 7): Detected insufficient power on the PCIe slot (27W)."
HOT = "mlx5_core 0000:17:00.0: Port module event[error]: module 0, Cable error, High Temperature"
CABLE = "mlx5_core 0000:17:00.0: Port module event[error]: module 0, Cable error, Unsupported cable"
SICK = "mlx5_core 0000:17:00.0: poll_health:955:(pid 0): device's health compromised - reached miss count"
PLANNED = env(NCCL_IB_HCA="=mlx5_0,mlx5_7")
MIXED = of(devices=(*CARDS, STORAGE))
BONDED = device(of(cards={**HOST.rdma.cards, "0000:17:00.1": "0x15b3"}), name="mlx5_bond_0")
NARROW = device(link_width=8, ports=(RdmaPort(1, state="ACTIVE", rate_gbps=200.0),))

EXAMPLES = examples(
    {
        "rdma.device-present": {
            OK: HOST,
            FAIL: of(devices=()),
            SKIP: [LAPTOP, changed(machine(of(devices=()), virtual="kvm"), gpu={"gpus": ()})],
            UNKNOWN: NOTHING,
        },
        "rdma.card-driven": {
            OK: [
                HOST,
                BONDED,
                of(devices=CARDS[:7], card_drivers={**HOST.rdma.card_drivers, "0000:17:00.0": "vfio-pci"}),
            ],
            FAIL: [
                of(devices=CARDS[:7]),
                of(devices=CARDS[:7], card_drivers=dict.fromkeys(list(HOST.rdma.cards)[:7], "mlx5_core")),
            ],
            SKIP: [LAPTOP, machine(virtual="kvm"), of(cards={})],
            UNKNOWN: NOTHING,
        },
        "rdma.uverbs": {
            OK: HOST,
            FAIL: [of(nodes=("rdma_cm",)), of(nodes=tuple(f"uverbs{n}" for n in range(7)))],
            SKIP: LAPTOP,
            UNKNOWN: [of(nodes=None), device(uverbs=None)],
        },
        "rdma.uverbs-openable": {
            OK: HOST,
            FAIL: of(unopenable={"uverbs7": "EACCES"}),
            SKIP: LAPTOP,
            UNKNOWN: of(nodes=None),
        },
        "rdma.umad": {OK: HOST, WARN: of(nodes=("uverbs0",)), SKIP: [LAPTOP, ROCE], UNKNOWN: of(nodes=None)},
        "rdma.providers": {
            OK: INSIDE,
            FAIL: [
                changed(INSIDE, container={"libibverbs": ""}),
                changed(INSIDE, container={"providers": ("libefa-rdmav34.so",)}),
            ],
            SKIP: [LAPTOP, HOST, changed(INSIDE, rdma={"devices": (RdmaDevice("rxe0"),)})],
            UNKNOWN: changed(INSIDE, container={"providers": None}),
        },
        "rdma.guid-set": {
            OK: HOST,
            FAIL: device(node_guid="0000:0000:0000:0000"),
            SKIP: LAPTOP,
            UNKNOWN: device(node_guid=None),
        },
        "rdma.guid-unique": {
            OK: HOST,
            FAIL: device(node_guid=guid(0)),
            SKIP: LAPTOP,
            UNKNOWN: of(devices=(replace(CARDS[0], node_guid=None),)),
        },
        "rdma.devices-stay": {
            OK: replace(HOST, before=HOST),
            FAIL: replace(of(devices=CARDS[:7]), before=HOST),
            SKIP: [HOST, replace(LAPTOP, before=LAPTOP)],
            UNKNOWN: replace(NOTHING, before=HOST),
        },
        "rdma.netns": {
            OK: INSIDE,
            FAIL: changed(INSIDE, container={"host_network": False}, rdma={"netns_mode": "exclusive", "devices": ()}),
            SKIP: HOST,
            UNKNOWN: [NOTHING, changed(INSIDE, rdma={"netns_mode": None})],
        },
        "rdma.some-port-active": {OK: HOST, WARN: every(**NO_LINK), SKIP: LAPTOP, UNKNOWN: every(state=None)},
        "rdma.port-active": {
            OK: [HOST, port(**NO_LINK)],
            FAIL: [port(state="INIT"), port(base=ROCE, state="DOWN")],
            SKIP: [LAPTOP, every(**NO_LINK)],
            UNKNOWN: port(state=None),
        },
        "rdma.card-linked": {
            OK: [HOST, port(of(devices=CARDS[:2]), **NO_LINK)],
            FAIL: port(**NO_LINK),
            SKIP: LAPTOP,
            UNKNOWN: port(phys_state=None),
        },
        "rdma.carrier-agrees": {
            OK: ROCE,
            WARN: port(base=ROCE, state="DOWN"),
            SKIP: [LAPTOP, HOST],
            UNKNOWN: changed(ROCE, net={"netdevs": ()}),
        },
        "rdma.subnet-manager": {
            OK: [HOST, port(state="INIT", sm_lid=0)],
            FAIL: every(state="INIT", sm_lid=0),
            SKIP: [LAPTOP, ROCE],
            UNKNOWN: every(state=None),
        },
        "rdma.lid": {OK: HOST, FAIL: port(lid=0), SKIP: [LAPTOP, ROCE], UNKNOWN: port(lid=None)},
        "rdma.link-layer-chosen": {
            OK: PLANNED,
            FAIL: env(MIXED, NCCL_IB_HCA="mlx5"),
            SKIP: [LAPTOP, HOST, env(NCCL_IB_HCA="=mlx5_9")],
            UNKNOWN: replace(HOST, env=None),
        },
        "rdma.link-layer": {
            OK: HOST,
            WARN: MIXED,
            SKIP: [LAPTOP, PLANNED, every(**NO_LINK)],
            UNKNOWN: port(link_layer=None),
        },
        "rdma.planned-linked": {
            OK: PLANNED,
            FAIL: port(base=PLANNED, **NO_LINK),
            SKIP: [LAPTOP, HOST, env(NCCL_IB_HCA="mlx5")],
            UNKNOWN: [replace(HOST, env=None), port(base=PLANNED, state=None)],
        },
        "rdma.rates-equal": {
            OK: [HOST, MIXED],
            WARN: port(rate_gbps=200.0, rate_text="200 Gb/sec (2X NDR)"),
            SKIP: [LAPTOP, every(**NO_LINK)],
            UNKNOWN: port(rate_gbps=None),
        },
        "rdma.functions": {
            OK: [HOST, device(is_vf=True, physfn="0000:17:00.0")],
            SKIP: LAPTOP,
            UNKNOWN: device(is_vf=None),
        },
        "rdma.bonds": {OK: device(name="mlx5_bond_0"), SKIP: [LAPTOP, HOST], UNKNOWN: NOTHING},
        "rdma.cards": {OK: HOST, SKIP: LAPTOP, UNKNOWN: of(devices=(replace(CARDS[0], sys_image_guid=None),))},
        "rdma.pcie-width": {
            OK: [
                HOST,
                NARROW,
                device(base=SPARK, link_width=4),
            ],
            FAIL: [device(link_width=8), device(base=SPARK, link_width=2)],
            SKIP: [LAPTOP, machine(virtual="kvm"), of(devices=(replace(CARDS[0], is_vf=True),))],
            UNKNOWN: device(link_width=None),
        },
        "rdma.pcie-speed": {
            OK: HOST,
            FAIL: device(link_speed="16.0 GT/s PCIe"),
            SKIP: [LAPTOP, machine(virtual="kvm"), of(devices=(RdmaDevice("rxe0"),))],
            UNKNOWN: device(link_speed="Unknown"),
        },
        "rdma.pcie-unlimited": {
            OK: [HOST, port(base=log(SLOT), rate_gbps=50.0)],
            WARN: log(SLOT),
            SKIP: [LAPTOP, log(SLOT, base=SPARK)],
            UNKNOWN: machine(kernel_log=None),
        },
        "rdma.slot-power": {
            OK: HOST,
            WARN: log(POWER),
            SKIP: [LAPTOP, log(POWER, base=SPARK)],
            UNKNOWN: machine(kernel_log=None),
        },
        "rdma.module-cool": {OK: [HOST, log(CABLE)], WARN: log(HOT), SKIP: LAPTOP, UNKNOWN: machine(kernel_log=None)},
        "rdma.module-sound": {OK: [HOST, log(HOT)], WARN: log(CABLE), SKIP: LAPTOP, UNKNOWN: machine(kernel_log=None)},
        "rdma.health": {OK: HOST, FAIL: log(SICK), SKIP: LAPTOP, UNKNOWN: machine(kernel_log=None)},
        "rdma.firmware-equal": {
            OK: [HOST, MIXED],
            WARN: device(fw_ver="28.39.1002"),
            SKIP: LAPTOP,
            UNKNOWN: of(devices=(replace(CARDS[0], fw_ver=None),)),
        },
        "rdma.numa-known": {
            OK: HOST,
            WARN: device(numa_node=-1),
            SKIP: [LAPTOP, machine(numa_nodes=1), of(devices=(RdmaDevice("rxe0"),))],
            UNKNOWN: device(numa_node=None),
        },
        "rdma.near-gpus": {
            OK: HOST,
            WARN: of(devices=CARDS[:4]),
            SKIP: [LAPTOP, changed(HOST, gpu={"gpus": ()}), of(devices=CARDS[:1]), every(**NO_LINK)],
            UNKNOWN: of(devices=tuple(replace(item, numa_node=None) for item in CARDS)),
        },
        "rdma.firmware-floor": {
            OK: device(of(SPARK, devices=CARDS[:1]), fw_ver="28.45.4028"),
            WARN: device(of(SPARK, devices=CARDS[:1]), fw_ver="28.42.1000"),
            SKIP: [LAPTOP, HOST],
            UNKNOWN: device(of(SPARK, devices=CARDS[:1]), fw_ver=None),
        },
        "rdma.port-count": {
            OK: HOST,
            FAIL: port(**NO_LINK),
            SKIP: [LAPTOP, PLANNED, machine(product="PowerEdge XE9680"), every(**NO_LINK)],
            UNKNOWN: NOTHING,
        },
        "rdma.rate-expected": {
            OK: HOST,
            FAIL: port(rate_gbps=200.0, rate_text="200 Gb/sec (2X NDR)"),
            SKIP: [LAPTOP, machine(product="PowerEdge XE9680")],
            UNKNOWN: every(rate_gbps=None),
        },
        "rdma.link-steady": counter("link_downed", 1),
        "rdma.link-errors": counter("local_link_integrity_errors", 1),
        "rdma.symbol-errors": counter("symbol_error", 101),
        "rdma.link-recovery": counter("link_error_recovery", 2),
        "rdma.receive-errors": counter("port_rcv_errors", 101),
        "rdma.transmit-discards": counter("port_xmit_discards", 1001),
        "rdma.receiver-ready": counter("rnr_nak_retry_err", 1),
        "rdma.ack-timeouts": counter("local_ack_timeout_err", 11),
        "rdma.retries-left": counter("req_transport_retries_exceeded", 1),
        "rdma.slow-restarts": counter("roce_slow_restart", 101),
        "rdma.packets-in-order": counter("out_of_sequence", 101),
        "rdma.retransmissions": counter("roce_adp_retrans", 101),
        "rdma.checksums": {
            **counter("rx_icrc_encapsulated", 2),
            UNKNOWN: NOTHING,
        },
        "roce.carrier-steady": statistic("carrier_changes", 2, 3),
        "roce.frames-sound": statistic("rx_crc_errors_phy", 100, 101),
        "roce.discards": statistic("rx_discards_phy", 1000, 1001),
    }
)
