"""RDMA devices, as the kernel lists them."""

from dataclasses import dataclass

from shoal.host.base import Host

CLASS = "/sys/class/infiniband"


@dataclass(frozen=True)
class Hca:
    """One RDMA device."""

    device: str
    state: str
    link_layer: str


def read(host: Host) -> tuple[Hca, ...]:
    """The machine's RDMA devices with the state of port 1; empty where the kernel has none."""
    out = []
    for device in host.list(CLASS):
        state = host.read(f"{CLASS}/{device}/ports/1/state") or "unknown"
        layer = host.read(f"{CLASS}/{device}/ports/1/link_layer") or "unknown"
        out.append(Hca(device, state.partition(":")[2].strip() or state.strip(), layer.strip()))
    return tuple(out)
