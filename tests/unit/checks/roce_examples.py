"""Examples for the group roce: a host with two ConnectX-6 ports on two rails, one thing wrong each."""

from dataclasses import replace
from typing import Any

from tests.unit.checks.examples import FAIL, OK, SKIP, UNKNOWN, WARN, changed, examples, node
from tests.unit.checks.rdma_examples import HOST as INFINIBAND
from tests.unit.checks.rdma_examples import LAPTOP, NOTHING

from shoal.facts.machine import MachineFacts
from shoal.facts.net import Address, Netdev, NetFacts, Qos, Route
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import Gid, RdmaDevice, RdmaFacts, RdmaPort
from shoal.facts.stack import StackFacts

V1, V2 = "IB/RoCE v1", "RoCE v2"
LINK_LOCAL = "fe80:0000:0000:0000:bace:f6ff:fe11:2200"
GLOBAL6 = "fd00:0000:0000:0000:0000:0000:0000:0001"


def mapped(ip: str) -> str:
    """The GID of an IPv4 address."""
    parts = [int(part) for part in ip.split(".")]
    return "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*parts)


def table(netdev: str, ip: str) -> tuple[Gid, ...]:
    """A GID table as the kernel fills it: link-local v1 and v2, then the address v1 and v2."""
    rows = ((LINK_LOCAL, V1), (LINK_LOCAL, V2), (mapped(ip), V1), (mapped(ip), V2))
    return tuple(Gid(index, gid, kind, netdev) for index, (gid, kind) in enumerate(rows))


def hca(number: int) -> RdmaDevice:
    """One ConnectX-6 port."""
    return RdmaDevice(
        f"mlx5_{number}",
        ports=(
            RdmaPort(
                1,
                state="ACTIVE",
                phys_state="LinkUp",
                link_layer="Ethernet",
                rate_gbps=200.0,
                active_mtu=4096,
                gids=table(f"ens{number}np0", f"10.0.{number}.1"),
                hw_counters={"np_cnp_sent": 0, "rp_cnp_handled": 0},
            ),
        ),
        pci=f"0000:4{number}:00.0",
        netdevs=(f"ens{number}np0",),
        driver="mlx5_core",
    )


def interface(number: int) -> Netdev:
    """The interface of that port."""
    return Netdev(
        f"ens{number}np0",
        operstate="up",
        carrier=True,
        running=True,
        up=True,
        mtu=9000,
        speed_mbps=200000,
        duplex="full",
        kind="physical",
        addresses=(Address(f"10.0.{number}.1", 24),),
        ethtool={"rx_prio3_pause": 0, "tx_prio3_pause": 0},
        fec="RS",
        qos=Qos("dscp", ONLY_3, ONLY_3, ONLY_3, "os"),
    )


ONLY_3 = (False, False, False, True, False, False, False, False)
NONE_ON = (False,) * 8
HOST = node(
    rdma=RdmaFacts(devices=(hca(1), hca(2))),
    net=NetFacts(
        netdevs=(interface(1), interface(2)),
        routes=(
            Route("default", "eno1"),
            Route("10.0.1.0/24", "ens1np0"),
            Route("10.0.2.0/24", "ens2np0"),
            Route("10.0.2.7/32", "eno1"),
        ),
    ),
    machine=MachineFacts(virtual=""),
    stack=StackFacts(nccl="2.28.9", plugin=""),
    env={},
)


def env(base: NodeFacts = HOST, **variables: str) -> NodeFacts:
    """The host with this environment."""
    return replace(base, env=variables)


def port(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its second port replaced."""
    first, second = base.rdma.devices or ()
    return changed(base, rdma={"devices": (first, replace(second, ports=(replace(second.ports[0], **fields),)))})


def both(**fields: Any) -> NodeFacts:
    """The host with fields of both ports replaced."""
    devices = tuple(replace(item, ports=(replace(item.ports[0], **fields),)) for item in HOST.rdma.devices or ())
    return changed(HOST, rdma={"devices": devices})


def netdev(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its second interface replaced."""
    first, second, *more = base.net.netdevs or ()
    return changed(base, net={"netdevs": (first, replace(second, **fields), *more)})


def interfaces(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of both interfaces replaced."""
    return changed(base, net={"netdevs": tuple(replace(item, **fields) for item in base.net.netdevs or ())})


def plus(*more: Netdev, base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with more interfaces."""
    return changed(base, net={"netdevs": (*(base.net.netdevs or ()), *more), **fields})


def qos(base: NodeFacts, **fields: Any) -> NodeFacts:
    """The host with its second interface's quality of service changed."""
    return netdev(base, qos=replace((base.net.netdevs or ())[1].qos, **fields))


def pauses(count: int, at: float, marks: int = 0) -> NodeFacts:
    """The host with pauses counted on its second interface."""
    counted = netdev(port(hw_counters={"np_cnp_sent": marks}), ethtool={"rx_prio3_pause": count})
    return changed(counted, machine={"clock": at})


LOCAL_ONLY = table("ens2np0", "0.0.0.0")[:2]
V6 = (*LOCAL_ONLY, Gid(2, GLOBAL6, V1, "ens2np0"), Gid(3, GLOBAL6, V2, "ens2np0"))
UNTYPED = tuple(replace(gid, type=None) for gid in table("ens2np0", "10.0.2.1"))
NO_NDEV = tuple(replace(gid, ndev=None) for gid in table("x", "10.0.2.1"))
TORN = (*table("ens2np0", "10.0.2.1"), Gid(4, mapped("10.9.9.9"), None, None, "EINVAL"))
TC = env(NCCL_IB_TC="106")
VLAN = Netdev(
    "ens2np0.100", kind="vlan", lower=("ens2np0",), vlan_id=100, mtu=9000, addresses=(Address("10.0.3.1", 24),)
)
PLUGIN = changed(HOST, stack={"plugin": "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so"})
NO_ADDRESS = interfaces(both(gids=LOCAL_ONLY), addresses=())
SAME_NET = netdev(addresses=(Address("10.0.1.2", 24),))

EXAMPLES = examples(
    {
        "roce.gid-v2-ipv4": {
            OK: [HOST, port(gids=LOCAL_ONLY)],
            FAIL: [NO_ADDRESS, both(gids=())],
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: [NOTHING, both(gids=None), both(gids=UNTYPED)],
        },
        "roce.gid-on-every-port": {
            OK: HOST,
            WARN: port(gids=LOCAL_ONLY),
            SKIP: [LAPTOP, NO_ADDRESS],
            UNKNOWN: port(gids=None),
        },
        "roce.gid-chosen": {
            OK: [HOST, changed(HOST, stack={"nccl": None})],
            FAIL: [
                both(gids=LOCAL_ONLY),
                port(gids=table("ens2np0", "10.0.2.1")[:3]),
                changed(HOST, stack={"nccl": "2.19.3"}),
                env(NCCL_IB_GID_INDEX="9"),
            ],
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: [port(gids=None), PLUGIN],
        },
        "roce.gid-index-valid": {
            OK: env(NCCL_IB_GID_INDEX="3"),
            FAIL: [env(NCCL_IB_GID_INDEX="5"), env(NCCL_IB_GID_INDEX="1"), env(NCCL_IB_GID_INDEX="2")],
            SKIP: [LAPTOP, HOST],
            UNKNOWN: [replace(HOST, env=None), env(port(gids=None), NCCL_IB_GID_INDEX="3")],
        },
        "roce.gid-interface": {
            OK: [HOST, plus(VLAN, base=port(gids=table("ens2np0.100", "10.0.3.1")))],
            FAIL: port(gids=table("macvlan7", "10.9.9.9")),
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: [
                PLUGIN,
                port(gids=None),
                port(gids=NO_NDEV),
            ],
        },
        "roce.ipv6-only": {
            OK: [HOST, env(both(gids=V6), NCCL_IB_ADDR_FAMILY="AF_INET6")],
            FAIL: [both(gids=V6), env(NCCL_IB_ADDR_FAMILY="AF_INET6")],
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: [PLUGIN, NO_ADDRESS],
        },
        "roce.gid-types-readable": {
            OK: [HOST, port(gids=TORN), env(changed(port(gids=TORN), stack={"nccl": "2.24.3"}), NCCL_IB_GID_INDEX="3")],
            FAIL: changed(port(gids=TORN), stack={"nccl": "2.24.3"}),
            SKIP: [LAPTOP, INFINIBAND, PLUGIN],
            UNKNOWN: changed(HOST, stack={"nccl": None}),
        },
        "roce.interface-known": {
            OK: HOST,
            WARN: changed(HOST, net={"netdevs": (interface(1),)}),
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: changed(HOST, net={"netdevs": None}),
        },
        "roce.interface-up": {
            OK: HOST,
            FAIL: [netdev(carrier=False, operstate="down"), netdev(up=False)],
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: netdev(operstate=None, carrier=None),
        },
        "roce.ipv4": {
            OK: [HOST, plus(VLAN, base=interfaces(addresses=()))],
            FAIL: NO_ADDRESS,
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: [interfaces(addresses=None), changed(HOST, net={"netdevs": ()})],
        },
        "roce.own-subnets": {
            OK: [HOST, changed(SAME_NET, net={"arp_ignore_all": 1, "arp_announce_all": 2})],
            WARN: SAME_NET,
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: NO_ADDRESS,
        },
        "roce.address-once": {
            OK: HOST,
            FAIL: plus(Netdev("br0", addresses=(Address("10.0.2.1", 24),))),
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: NO_ADDRESS,
        },
        "roce.own-route": {
            OK: HOST,
            FAIL: [
                changed(HOST, net={"routes": (Route("10.0.1.0/24", "ens1np0"), Route("10.0.2.0/24", "tailscale0"))}),
                changed(HOST, net={"routes": (*(HOST.net.routes or ()), Route("10.0.2.0/25", "docker0"))}),
            ],
            SKIP: [LAPTOP, INFINIBAND, interfaces(addresses=(Address("10.0.1.1", 32),))],
            UNKNOWN: [changed(HOST, net={"routes": None}), NO_ADDRESS],
        },
        "roce.mtu": {OK: HOST, WARN: netdev(mtu=1500), SKIP: [LAPTOP, INFINIBAND], UNKNOWN: netdev(mtu=None)},
        "roce.active-mtu": {
            OK: [HOST, port(netdev(mtu=1500), active_mtu=1024)],
            WARN: port(active_mtu=1024),
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: port(active_mtu=None),
        },
        "roce.equal-mtu": {OK: HOST, WARN: netdev(mtu=1500), SKIP: [LAPTOP, INFINIBAND], UNKNOWN: interfaces(mtu=None)},
        "roce.speed": {
            OK: HOST,
            FAIL: netdev(speed_mbps=25000),
            SKIP: [LAPTOP, INFINIBAND, changed(HOST, machine={"virtual": "kvm"})],
            UNKNOWN: netdev(speed_mbps=-1),
        },
        "roce.full-duplex": {
            OK: HOST,
            FAIL: netdev(duplex="half"),
            SKIP: [LAPTOP, INFINIBAND],
            UNKNOWN: netdev(duplex=None),
        },
        "roce.trust": {
            OK: [TC, qos(TC, trust="pcp", pfc=NONE_ON)],
            WARN: qos(TC, trust="pcp"),
            SKIP: [LAPTOP, INFINIBAND, HOST],
            UNKNOWN: [qos(TC, trust=None), replace(HOST, env=None)],
        },
        "roce.pfc": {
            OK: [TC, qos(TC, pfc=NONE_ON)],
            WARN: env(NCCL_IB_TC="160"),
            SKIP: [LAPTOP, INFINIBAND, HOST],
            UNKNOWN: qos(TC, pfc=None),
        },
        "roce.ecn": {
            OK: TC,
            WARN: qos(TC, ecn_rp=NONE_ON),
            SKIP: [LAPTOP, HOST, env(NCCL_IB_TC="104")],
            UNKNOWN: qos(TC, ecn_np=None),
        },
        "roce.sl-tagged": {
            OK: env(plus(VLAN), NCCL_IB_SL="3"),
            WARN: env(NCCL_IB_SL="3"),
            SKIP: [LAPTOP, HOST, env(NCCL_IB_SL="0")],
            UNKNOWN: replace(HOST, env=None),
        },
        "roce.pauses": {
            OK: [HOST, replace(pauses(99999, 1010.0, marks=5), before=pauses(0, 1000.0))],
            WARN: replace(pauses(99999, 1010.0), before=pauses(0, 1000.0)),
            SKIP: [LAPTOP, INFINIBAND, pauses(7, 1.0)],
            UNKNOWN: interfaces(ethtool={}),
        },
        "roce.dcbx": {OK: HOST, SKIP: LAPTOP, UNKNOWN: qos(HOST, dcbx=None)},
        "roce.fec": {OK: HOST, SKIP: LAPTOP, UNKNOWN: netdev(fec=None)},
        "roce.stacked": {OK: plus(VLAN), SKIP: [LAPTOP, HOST], UNKNOWN: NOTHING},
    }
)
