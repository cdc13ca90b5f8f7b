"""Which ports NCCL's own network takes: ``NCCL_IB_HCA``, ACTIVE ports only, at most 32, both link layers together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.facts.rdma import ETHERNET, INFINIBAND, RdmaDevice, RdmaPort
from shoal.nccl.defaults import whole
from shoal.nccl.environment import integer
from shoal.nccl.lists import NameList, parse
from shoal.nccl.variables import Version

HCA, DISABLE, PCI_ORDER = "NCCL_IB_HCA", "NCCL_IB_DISABLE", "NCCL_IB_DEVICE_PCI_ORDER"
LIMIT = 32
PCI_ORDER_SINCE: Version = (2, 29, 7)


@dataclass(frozen=True)
class Taken:
    """One port with the answer: whether NCCL takes it (None: not known), and why not."""

    device: RdmaDevice
    port: RdmaPort
    taken: bool | None
    why: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Device and port number."""
        return self.device.name, self.port.number


def ports(devices: Sequence[RdmaDevice], version: Version, env: Mapping[str, str]) -> tuple[Taken, ...]:
    """Every port of the node, in the order in which NCCL numbers devices, with what NCCL does with it."""
    names = parse(env.get(HCA), version, LIMIT)
    out: list[Taken] = []
    for device in _ordered(devices, version, env):
        for port in device.ports:
            taken, why = _judge(device, port, names, env)
            if taken and sum(item.taken is True for item in out) >= LIMIT:
                taken, why = False, f"NCCL takes at most {LIMIT} ports"
            out.append(Taken(device, port, taken, why))
    return tuple(out)


def _ordered(devices: Sequence[RdmaDevice], version: Version, env: Mapping[str, str]) -> list[RdmaDevice]:
    # Before 2.29.7 it is the order of libibverbs, which is the kernel's: by name is the best guess at it.
    by_name = sorted(devices, key=lambda device: device.name)
    if whole(version) >= PCI_ORDER_SINCE and integer(env.get(PCI_ORDER), 1):
        return sorted(by_name, key=lambda device: (device.pci is None, device.pci or ""))
    return by_name


def _judge(device: RdmaDevice, port: RdmaPort, names: NameList, env: Mapping[str, str]) -> tuple[bool | None, str]:
    if port.is_active is False:
        return False, f"the port is {port.state}" + (f", {port.phys_state}" if port.phys_state else "")
    if port.link_layer is not None and port.link_layer not in {ETHERNET, INFINIBAND}:
        return False, f"link layer {port.link_layer}"
    if not names.takes(device.name, port.number):
        return False, f"{HCA}={env.get(HCA, '')} leaves it out"
    if port.is_active is None:
        return None, "the port's state is not known"
    return True, ""
