"""Nodes for the fabric plan, built from few words."""

from collections.abc import Sequence
from dataclasses import replace

from shoal.facts.gpu import Gpu, GpuFacts
from shoal.facts.machine import MachineFacts
from shoal.facts.net import Address, Netdev, NetFacts, Route
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import ETHERNET, INFINIBAND, ROCE_V1, ROCE_V2, Gid, RdmaDevice, RdmaFacts, RdmaPort

Card = tuple[RdmaDevice, Netdev]
FE80 = "fe80:0000:0000:0000:5e25:73ff:fe3d:0001"


def mapped(ip: str) -> str:
    """An address as the kernel writes its GID."""
    if ":" in ip:
        return ip
    a, b, c, d = (int(part) for part in ip.split("."))
    return f"0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"


def table(rows: Sequence[tuple[str, str]]) -> tuple[Gid, ...]:
    """A GID table: for each (address, interface) the v1 slot and the v2 slot after it."""
    both = [(ip, kind, dev) for ip, dev in rows for kind in (ROCE_V1, ROCE_V2)]
    return tuple(Gid(index, mapped(ip), kind, dev) for index, (ip, kind, dev) in enumerate(both))


def addresses(*texts: str) -> tuple[Address, ...]:
    """Addresses from the form 10.0.0.1/24."""
    return tuple(Address(text.partition("/")[0], int(text.partition("/")[2])) for text in texts)


def netdev(name: str, index: int, *texts: str, mtu: int = 9000, **more: object) -> Netdev:
    """An interface that is up, with these addresses."""
    up = {"operstate": "up", "carrier": True, "running": True, "up": True}
    base = Netdev(name, index, mtu=mtu, kind="physical", addresses=addresses(*texts), **up)  # type: ignore[arg-type]
    return replace(base, **more)  # type: ignore[arg-type]


def roce(
    name: str,
    pci: str,
    dev: str,
    *texts: str,
    index: int = 3,
    rate: float = 200.0,
    state: str = "ACTIVE",
    guid: str | None = None,
    gids: tuple[Gid, ...] | None = None,
) -> Card:
    """A RoCE HCA with one port, its interface and its usual GID table."""
    up = state == "ACTIVE"
    rows = [(FE80, dev), *((text.partition("/")[0], dev) for text in texts)]
    port = RdmaPort(1, state, "LinkUp" if up else "Polling", ETHERNET, rate, gids=table(rows) if gids is None else gids)
    device = RdmaDevice(name, (port,), pci, (dev,), sys_image_guid=guid or name, uverbs=f"uverbs{index}")
    net = netdev(dev, index, *texts, carrier=up, running=up, operstate="up" if up else "down")
    return device, net


def infiniband(name: str, pci: str, *, rate: float = 400.0, lid: int = 7, state: str = "ACTIVE") -> RdmaDevice:
    """An InfiniBand HCA with one port."""
    gids = (Gid(0, "fe80:0000:0000:0000:a088:c203:0011:2233", ROCE_V1),)
    port = RdmaPort(1, state, "LinkUp", INFINIBAND, rate, lid=lid, gids=gids)
    return RdmaDevice(name, (port,), pci, sys_image_guid=name)


def node(
    name: str,
    cards: Sequence[Card] = (),
    *,
    devices: Sequence[RdmaDevice] = (),
    netdevs: Sequence[Netdev] = (),
    routes: tuple[Route, ...] | None = (),
    env: dict[str, str] | None = None,
    gpu: str = "",
    plugin: str | None = None,
) -> NodeFacts:
    """A node of these cards, and of devices and interfaces that are no cards."""
    facts = NodeFacts(
        name,
        MachineFacts(hostname=name),
        GpuFacts(gpus=(Gpu(0, gpu, None),) if gpu else ()),
        RdmaFacts(devices=(*(card[0] for card in cards), *devices)),
        NetFacts(netdevs=(*netdevs, *(card[1] for card in cards)), routes=routes),
        env=env or {},
    )
    return replace(facts, stack=replace(facts.stack, plugin=plugin))


def spark(
    number: int,
    cables: Sequence[Sequence[str]],
    *,
    twins: bool = True,
    env: dict[str, str] | None = None,
) -> NodeFacts:
    """A DGX Spark. For each of its two cages the addresses of the two halves; none: no cable there."""
    cards = []
    for cage in (0, 1):
        here = list(cables[cage]) if cage < len(cables) else []
        for half, (rdma, net, pci) in enumerate(
            [
                (f"rocep1s0f{cage}", f"enp1s0f{cage}np{cage}", f"0000:01:00.{cage}"),
                (f"roceP2p1s0f{cage}", f"enP2p1s0f{cage}np{cage}", f"0002:01:00.{cage}"),
            ]
        ):
            texts = here[half : half + 1] if twins or half == 0 else []
            state = "ACTIVE" if here else "DOWN"
            cards.append(roce(rdma, pci, net, *texts, index=3 + 2 * cage + half, state=state, guid=f"card{number}"))
    way_out = netdev("enP7s7", 2, f"10.0.0.{number}/24", mtu=1500)
    routes = (Route("default", "enP7s7", "10.0.0.254"), Route("10.0.0.0/24", "enP7s7"))
    return node(f"spark-{number}", cards, netdevs=[way_out], routes=routes, env=env, gpu="NVIDIA GB10")
