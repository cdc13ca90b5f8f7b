"""RDMA devices: are they there, has each its own name, can a program open them."""

from collections import Counter
from collections.abc import Iterable

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import (
    MELLANOX,
    each_device,
    is_virtual,
    listed,
    ports,
    without_rdma,
)
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice

RDMA = ("rdma",)
OWN_DRIVERS = ("mlx5_core", "mlx4_core")
PROVIDERS = {
    "mlx5_core": "mlx5",
    "mlx4_core": "mlx4",
    "bnxt_en": "bnxt_re",
    "ice": "irdma",
    "i40e": "irdma",
    "efa": "efa",
    "ionic": "ionic",
}


def _cards(node: NodeFacts) -> list[str]:
    """PCI functions of NVIDIA (Mellanox) network cards that this machine itself drives."""
    mine = [address for address, vendor in node.rdma.cards.items() if vendor == MELLANOX]
    drivers = node.rdma.card_drivers
    # A function that no driver took counts where it is a physical one; virtual ones are numbered after those.
    free = [address for address in mine if address not in drivers and address[-2:] in (".0", ".1")]
    return [address for address in mine if drivers.get(address) in OWN_DRIVERS] + free


@check(
    "rdma.device-present",
    "RDMA cards have RDMA devices",
    severity=Severity.FATAL,
    needs=("rdma", "machine", "gpu"),
)
def device_present(node: NodeFacts) -> Verdict:
    """NCCL finds fabric cards only through the kernel's RDMA devices, which mlx5_ib makes for ConnectX and BlueField.

    Without that module the cards are plain Ethernet to it, and all traffic between nodes goes over TCP.
    """
    if node.rdma.devices:
        return ok(listed(device.name for device in node.rdma.devices))
    if node.rdma.devices is None:
        return unknown("/sys/class/infiniband was not read")
    cards = _cards(node)
    if not cards:
        return skip("no RDMA card on this machine")
    if is_virtual(node) and not node.gpu.gpus:
        return skip("a virtual machine without GPUs: its virtual network functions need no RDMA")
    return fail(
        f"/sys/class/infiniband is empty; cards of vendor {MELLANOX} at {listed(cards)}",
        "sudo modprobe mlx5_ib  # in a container, run it with /sys mounted and network_mode: host",
    )


@check("rdma.card-driven", "each function of an RDMA card has its RDMA device", needs=("rdma", "machine"))
def card_driven(node: NodeFacts) -> Verdict:
    """A card whose driver failed to start is on the PCI bus and has no RDMA device: its rail is missing.

    The kernel log says why: firmware that did not come up, or a driver that does not know the card.
    """
    if (none := without_rdma(node)) is not None:
        return none
    if is_virtual(node):
        return skip("a virtual machine: virtual functions need no RDMA device")
    cards = _cards(node)
    if not cards:
        return skip(f"no network card of vendor {MELLANOX} on the PCI bus")
    have = {device.pci for device in node.rdma.devices or ()}
    # One bond device stands for all functions of its card.
    bonds = [(device.pci or "?").rpartition(".")[0] for device in node.rdma.devices or () if "bond" in device.name]
    missing = [card for card in cards if card not in have and card.rpartition(".")[0] not in bonds]
    if missing:
        return fail(
            f"no RDMA device for {listed(missing)}",
            f"sudo dmesg | grep {missing[0]}  # says why; then: echo 1 | sudo tee /sys/bus/pci/rescan",
        )
    return ok(f"{len(cards)} functions, all with an RDMA device")


@check("rdma.uverbs", "each RDMA device has its node in /dev/infiniband", severity=Severity.FATAL, needs=RDMA)
def uverbs(node: NodeFacts) -> Verdict:
    """Programs reach an RDMA device through /dev/infiniband/uverbsN alone. A container has only the nodes given to it.

    Without it NCCL says "No device found" and goes on over TCP, without an error.
    """
    if (none := without_rdma(node)) is not None:
        return none
    nodes = node.rdma.nodes
    if nodes is None:
        return unknown("/dev/infiniband was not read")
    if not any(name.startswith("uverbs") for name in nodes):
        mend = "sudo modprobe ib_uverbs  # in a container: --device /dev/infiniband"
        return fail("/dev/infiniband holds no uverbs node", mend)

    def judge(device: RdmaDevice) -> Verdict:
        if device.uverbs is None:
            return unknown(f"/sys/class/infiniband_verbs does not say which node is {device.name}'s")
        if device.uverbs not in nodes:
            mend = f"--device /dev/infiniband/{device.uverbs}  # for the container; on a host: sudo udevadm trigger"
            return fail(f"{device.name}: /dev/infiniband/{device.uverbs} is missing", mend)
        return ok(f"{len(nodes)} nodes in /dev/infiniband")

    return each_device(node, judge)


@check("rdma.uverbs-openable", "RDMA devices can be opened", severity=Severity.FATAL, needs=RDMA)
def uverbs_openable(node: NodeFacts) -> Verdict:
    """A node that is there and cannot be opened (rights, or a container's device rules) is as good as none to NCCL."""
    if (none := without_rdma(node)) is not None:
        return none
    if node.rdma.nodes is None:
        return unknown("/dev/infiniband was not read")
    shut = {name: errno for name, errno in node.rdma.unopenable.items() if name.startswith("uverbs")}
    if shut:
        said = listed(f"/dev/infiniband/{name}: {errno}" for name, errno in shut.items())
        return fail(
            said, f"sudo chmod 666 /dev/infiniband/{next(iter(shut))}  # in a container: --device /dev/infiniband"
        )
    return ok("all uverbs nodes open")


@check("rdma.umad", "InfiniBand tools can reach the subnet manager", severity=Severity.WARNING, needs=RDMA)
def umad(node: NodeFacts) -> Verdict:
    """ibstat, ibdiagnet and perfquery use /dev/infiniband/umadN, which NCCL itself does without."""
    if (none := without_rdma(node)) is not None:
        return none
    if not any(port.is_infiniband for port in ports(node)):
        return skip("no InfiniBand port")
    if node.rdma.nodes is None:
        return unknown("/dev/infiniband was not read")
    if not any(name.startswith("umad") for name in node.rdma.nodes):
        return warn("/dev/infiniband holds no umad node", "sudo modprobe ib_umad")
    return ok(listed(name for name in node.rdma.nodes if name.startswith("umad")))


@check(
    "rdma.providers",
    "libibverbs has a provider for each device",
    severity=Severity.FATAL,
    needs=("rdma", "container", "stack"),
)
def providers(node: NodeFacts) -> Verdict:
    """NCCL loads libibverbs.so.1, and that loads a provider for each kind of card. One missing hides the devices.

    It is judged where the engine would run: in its container, or on a host with its own vLLM.
    """
    if (none := without_rdma(node)) is not None:
        return none
    if not node.container.inside and not (node.stack.vllm or node.stack.torch):
        return skip("the engine runs in a container, which brings its own")
    if node.container.libibverbs == "":
        return fail("libibverbs.so.1 is in no library path", "sudo apt install libibverbs1 ibverbs-providers")
    if node.container.providers is None:
        return unknown("library folders were not read")
    have = listed(node.container.providers)

    def judge(device: RdmaDevice) -> Verdict:
        wanted = PROVIDERS.get(device.driver or "")
        if wanted is None:
            return skip(f"{device.name}: no provider known for driver {device.driver or '?'}")
        if not any(name.startswith(f"lib{wanted}") for name in node.container.providers or ()):
            said = f"driver {device.driver}: no lib{wanted}-rdmav*.so; found: {have or 'none'}"
            return fail(said, "sudo apt install ibverbs-providers")
        return ok(have)

    return each_device(node, judge)


@check("rdma.guid-set", "each RDMA device has a GUID", severity=Severity.FATAL, needs=RDMA)
def guid_set(node: NodeFacts) -> Verdict:
    """Virtual functions start with a GUID of zeros, and two such devices cannot be told apart on the fabric."""

    def judge(device: RdmaDevice) -> Verdict:
        if device.node_guid is None:
            return unknown(f"{device.name}: node_guid was not read")
        if not device.node_guid.replace(":", "").strip("0 "):
            mend = (
                f"sudo ip link set <physical interface> vf <number> node_guid <guid>  # of {device.pci or device.name}"
            )
            return fail(f"{device.name}: node_guid {device.node_guid}", mend)
        return ok("all have one")

    return each_device(node, judge)


@check("rdma.guid-unique", "no two RDMA devices share a GUID", severity=Severity.FATAL, needs=RDMA)
def guid_unique(node: NodeFacts) -> Verdict:
    """The connection manager and the subnet manager know a device by its GUID. Cloned machines bring it twice."""
    if (none := without_rdma(node)) is not None:
        return none
    guids = [(device.node_guid or "", device.name) for device in node.rdma.devices or ()]
    if not any(guid for guid, _ in guids):
        return unknown("node_guid was not read")
    twice = _twice(guid for guid, _ in guids if guid.replace(":", "").strip("0 "))
    if twice:
        names = listed(f"{name} {guid}" for guid, name in guids if guid in twice)
        last = next(item for item in reversed(node.rdma.devices or ()) if item.node_guid in twice)
        return fail(names, f"sudo mlxconfig -d {last.pci or last.name} query | grep GUID  # give each its own")
    return ok(f"{len(guids)} devices")


def _twice(words: Iterable[str]) -> set[str]:
    return {word for word, count in Counter(words).items() if count > 1}


@check("rdma.devices-stay", "no RDMA device has vanished", severity=Severity.FATAL, needs=("rdma", "before"))
def devices_stay(node: NodeFacts) -> Verdict:
    """A device that was there at the reading before and is gone now was reset, unplugged or lost by the driver."""
    if node.before is None or node.before.rdma.devices is None:
        return skip("one reading only")
    if node.rdma.devices is None:
        return unknown("/sys/class/infiniband was not read")
    gone = sorted({item.name for item in node.before.rdma.devices} - {item.name for item in node.rdma.devices})
    if gone:
        return fail(f"gone since the reading before: {listed(gone)}", "sudo dmesg | grep mlx5  # says why; else reboot")
    return ok(f"{len(node.rdma.devices)} devices, as before") if node.rdma.devices else skip("no RDMA device")


@check(
    "rdma.netns",
    "RDMA devices are in the network namespace of the container",
    severity=Severity.FATAL,
    needs=("rdma", "container"),
)
def netns(node: NodeFacts) -> Verdict:
    """In the kernel's exclusive mode an RDMA device belongs to one network namespace, by default to the host's.

    A container with a network of its own then sees none. In shared mode it sees them, but not their GIDs.
    """
    if not node.container.inside:
        return skip("on a host") if node.container.inside == "" else unknown("whether this is a container is not known")
    if node.rdma.netns_mode is None:
        return unknown("rdma system show was not asked")
    if node.rdma.netns_mode == "exclusive" and not node.container.host_network and not node.rdma.devices:
        return fail("rdma system: netns exclusive; this container has a network of its own", "network_mode: host")
    return ok(f"rdma system: netns {node.rdma.netns_mode}; {len(node.rdma.devices or ())} devices here")


CHECKS: tuple[Check[NodeFacts], ...] = (
    device_present,
    card_driven,
    uverbs,
    uverbs_openable,
    umad,
    providers,
    guid_set,
    guid_unique,
    devices_stay,
    netns,
)
