"""What several checks ask of a node's facts: which kind of machine it is, what it has, which interface is a port's."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from shoal.checks.base import Verdict, skip, unknown, worst
from shoal.facts.gpu import Gpu
from shoal.facts.net import Netdev
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import ETHERNET, INFINIBAND, Gid, RdmaDevice, RdmaPort
from shoal.nccl.environment import effective
from shoal.nccl.variables import LAST, Version, parse_version

MELLANOX = "0x15b3"
ENV_NOT_READ = "the environment was not read: env"
Judge = Callable[[NodeFacts], Verdict]


@dataclass(frozen=True)
class Port:
    """A port with its device."""

    device: RdmaDevice
    port: RdmaPort

    @property
    def label(self) -> str:
        """Device and port, as rdma and ibv_devinfo name them: mlx5_0/1."""
        return f"{self.device.name}/{self.port.number}"

    @property
    def is_ethernet(self) -> bool:
        """Whether its link layer is Ethernet: RoCE."""
        return self.port.link_layer == ETHERNET

    @property
    def is_infiniband(self) -> bool:
        """Whether its link layer is InfiniBand."""
        return self.port.link_layer == INFINIBAND

    @property
    def gids(self) -> tuple[Gid, ...]:
        """The filled slots of its GID table."""
        return tuple(gid for gid in self.port.gids or () if not gid.is_zero)


def version(text: str | None) -> tuple[int, ...]:
    """The numbers of a version, for comparison: 28.45.4028 is (28, 45, 4028)."""
    return tuple(int(word) for word in re.findall(r"\d+", (text or "").partition("+")[0]))


def listed(words: Iterable[str], most: int = 8) -> str:
    """Words with commas, the tail counted."""
    all_words = list(words)
    more = f" and {len(all_words) - most} more" if len(all_words) > most else ""
    return ", ".join(all_words[:most]) + more


def is_virtual(node: NodeFacts) -> bool:
    """Whether it is a virtual machine."""
    return bool(node.machine.virtual)


def without_gpus(node: NodeFacts) -> Verdict | None:
    """Why GPUs cannot be judged here; None where there are some."""
    gpu = node.gpu
    if gpu.gpus:
        return None
    if gpu.cards:
        return unknown(f"the driver shows none of {len(gpu.cards)} NVIDIA cards: see gpu.driver-loaded")
    if gpu.cards == ():
        return skip("no NVIDIA GPU on this machine")
    if gpu.installed is False:
        return skip("no nvidia-smi on this machine")
    return unknown("GPUs were not read: nvidia-smi -q tells")


def each_gpu(node: NodeFacts, judge: Callable[[Gpu], Verdict]) -> Verdict:
    """The worst judgement of all GPUs; SKIP or UNKNOWN where there are none."""
    return without_gpus(node) or worst(judge(gpu) for gpu in node.gpu.gpus or ())


def without_rdma(node: NodeFacts) -> Verdict | None:
    """Why RDMA devices cannot be judged here; None where there are some."""
    if node.rdma.devices is None:
        return unknown("/sys/class/infiniband was not read")
    return None if node.rdma.devices else skip("no RDMA device on this machine")


def each_device(node: NodeFacts, judge: Callable[[RdmaDevice], Verdict]) -> Verdict:
    """The worst judgement of all RDMA devices."""
    return without_rdma(node) or worst(judge(device) for device in node.rdma.devices or ())


def ports(node: NodeFacts) -> Iterator[Port]:
    """All ports of all RDMA devices."""
    return (Port(device, port) for device in node.rdma.devices or () for port in device.ports)


def each_port(node: NodeFacts, judge: Callable[[Port], Verdict], among: Iterable[Port] | None = None) -> Verdict:
    """The worst judgement of all ports, or of those given."""
    return without_rdma(node) or worst(judge(port) for port in (ports(node) if among is None else among))


def active(node: NodeFacts) -> tuple[Port, ...]:
    """The ports that are ACTIVE."""
    return tuple(port for port in ports(node) if port.port.is_active)


def netdev_of(node: NodeFacts, port: Port) -> Netdev | None:
    """A port's interface: its PCI function's own, of several the one that its GIDs name; else that of its GIDs.

    A bond's or a VLAN's GIDs stand in the same table, so what the function owns comes first.
    """
    mine = [found for name in port.device.netdevs or () if (found := node.net.netdev(name))]
    named = {gid.ndev: None for gid in port.gids if gid.ndev}
    for netdev in mine:
        if len(mine) == 1 or netdev.name in named:
            return netdev
    by_number = [netdev for netdev in mine if netdev.dev_port == port.port.number - 1]
    foreign = (found for name in named if (found := node.net.netdev(name)))
    return next(iter(by_number), None) or next(foreign, None)


def above(node: NodeFacts, netdev: Netdev) -> tuple[Netdev, ...]:
    """The interface with its bond and the VLANs on either: what may hold the port's addresses."""
    master = node.net.netdev(netdev.master)
    base = [netdev, master] if master and master.kind == "bond" else [netdev]
    names = {item.name for item in base}
    vlans = [item for item in node.net.netdevs or () if item.kind == "vlan" and names & set(item.lower)]
    return (*base, *vlans)


def has_gpu(facts: NodeFacts) -> bool:
    """Whether it has an NVIDIA GPU, seen by the driver or on the PCI bus."""
    return bool(facts.gpu.gpus or facts.gpu.cards)


def has_rdma(facts: NodeFacts) -> bool | None:
    """Whether the kernel has an RDMA device; None where nobody looked."""
    return None if facts.rdma.devices is None else bool(facts.rdma.devices)


def is_node(facts: NodeFacts) -> bool:
    """Whether it is made to serve: it has GPUs or RDMA, or is told to be a node. A laptop is judged more mildly."""
    return has_gpu(facts) or bool(facts.rdma.devices) or bool((facts.env or {}).get("RAY_MODE"))


def is_metal(facts: NodeFacts) -> bool | None:
    """Whether it is no virtual machine; None where that is not known."""
    return None if facts.machine.virtual is None else facts.machine.virtual == ""


def is_spark(facts: NodeFacts) -> bool:
    """Whether it is a GB10 machine (DGX Spark), where memory is shared and GPUDirect RDMA does not exist."""
    return any("GB10" in gpu.name for gpu in facts.gpu.gpus or ()) or "Spark" in (facts.machine.product or "")


def active_hcas(facts: NodeFacts) -> tuple[RdmaDevice, ...]:
    """The devices with an ACTIVE port."""
    return tuple(item for item in facts.rdma.devices or () if any(port.is_active for port in item.ports))


def env(facts: NodeFacts, name: str) -> str:
    """A variable's value without blanks; empty where it is not set or not known."""
    return (facts.env or {}).get(name, "").strip()


def nccl_version(facts: NodeFacts) -> Version:
    """The node's NCCL; the newest known where nobody knows."""
    return parse_version(facts.stack.nccl or "") or LAST


def effective_env(facts: NodeFacts) -> Mapping[str, str]:
    """What NCCL finds on this node: its configuration files, and the environment over them."""
    return effective(facts.env, facts.stack.nccl_conf)


def when_set(name: str) -> Callable[[Judge], Judge]:
    """Judge only where this variable is set."""

    def wrap(judge: Judge) -> Judge:
        @functools.wraps(judge)
        def judged(facts: NodeFacts) -> Verdict:
            if facts.env is None:
                return unknown(ENV_NOT_READ)
            return judge(facts) if effective_env(facts).get(name, "").strip() else skip(f"{name} is not set")

        return judged

    return wrap
