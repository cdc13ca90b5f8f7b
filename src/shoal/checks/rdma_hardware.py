"""RDMA cards as hardware: PCI Express, firmware, modules and cables, the place beside the GPUs."""

import re
from collections.abc import Iterable

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import fabric
from shoal.checks.views import each_device, is_spark, is_virtual, listed, ports, without_rdma
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice

RDMA = ("rdma",)
SLOT = ("rdma", "machine", "gpu")
LOG = ("rdma", "machine")
SPARK_LANES = 4  # DGX Spark: each of the four functions has four lanes of generation 5, about 100 Gb/s
GIGABIT = re.compile(r"([\d.]+) Gb/s available PCIe bandwidth, limited by")


def _transfers(text: str | None) -> float | None:
    """GT/s of a link: "32.0 GT/s PCIe" is 32."""
    found = re.match(r"([\d.]+) GT/s", text or "")
    return float(found[1]) if found else None


def _bandwidth(speed: str | None, width: int | None) -> float | None:
    """Gb/s that a PCI Express link carries one way, its line code taken off."""
    transfers = _transfers(speed)
    if transfers is None or not width:
        return None
    return transfers * width * (128 / 130 if transfers >= 8 else 0.8)


def _needed(device: RdmaDevice) -> float:
    """Gb/s of its ports that have a link."""
    return sum(port.rate_gbps or 0 for port in device.ports if port.is_active)


def _without_slot(node: NodeFacts) -> Verdict | None:
    if (none := without_rdma(node)) is not None:
        return none
    return skip(f"a virtual machine ({node.machine.virtual}) shows no real slot") if is_virtual(node) else None


def _slot(device: RdmaDevice) -> str:
    return f"sudo lspci -s {device.pci or device.name} -vv | grep LnkSta  # power off and reseat the card"


@check("rdma.pcie-width", "RDMA cards have the PCI Express lanes that their ports need", needs=SLOT)
def pcie_width(node: NodeFacts) -> Verdict:
    """A card that came up with fewer lanes than it has, and too few for its port, is badly seated or in a short slot.

    A DGX Spark gives four lanes to each function, which is right.
    """
    least = SPARK_LANES if is_spark(node) else None

    def judge(device: RdmaDevice) -> Verdict:
        if device.is_vf or device.pci is None:
            return skip(f"{device.name} has no slot of its own")
        width, most = device.link_width, least or device.max_link_width
        if not width or not most:
            return unknown(f"{device.name}: device/current_link_width was not read")
        carried = _bandwidth(device.link_speed, width)
        if width < most and (least or carried is None or carried < _needed(device)):
            return fail(f"{device.name} ({device.pci}): x{width} of x{most}", _slot(device))
        return ok(f"x{width}")

    return _without_slot(node) or each_device(node, judge)


@check("rdma.pcie-speed", "RDMA cards have the PCI Express speed that their ports need", needs=SLOT)
def pcie_speed(node: NodeFacts) -> Verdict:
    """A link of a lower generation than the card's halves what it can move, whatever its port says."""

    def judge(device: RdmaDevice) -> Verdict:
        if device.is_vf or device.pci is None:
            return skip(f"{device.name} has no slot of its own")
        now, most = _transfers(device.link_speed), _transfers(device.max_link_speed)
        if now is None or most is None:
            return unknown(f"{device.name}: device/current_link_speed was not read")
        carried = _bandwidth(device.link_speed, device.link_width)
        if now < most and (is_spark(node) or carried is None or carried < _needed(device)):
            return fail(f"{device.name} ({device.pci}): {now:g} of {most:g} GT/s", _slot(device))
        return ok(f"{now:g} GT/s")

    return _without_slot(node) or each_device(node, judge)


def _log(node: NodeFacts, pattern: str) -> list[str] | None:
    """Lines of the kernel log about RDMA cards with this pattern; None where the log was not read."""
    lines = node.machine.kernel_log
    if lines is None:
        return None
    return [line for line in lines if "mlx5" in line and re.search(pattern, line, re.IGNORECASE)]


def _on_log(node: NodeFacts, pattern: str) -> tuple[Verdict | None, list[str]]:
    """A verdict where the log tells nothing, else its lines."""
    if (none := without_rdma(node)) is not None:
        return none, []
    lines = _log(node, pattern)
    if lines is None:
        return unknown("the kernel log was not read: it needs root (sudo dmesg)"), []
    return None if lines else ok("kernel log: none"), lines


def _pci(line: str) -> str:
    """The PCI address in a line of the kernel log."""
    found = re.search(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", line)
    return found[0] if found else "<card>"


@check(
    "rdma.pcie-unlimited",
    "no PCI Express bridge limits an RDMA card",
    severity=Severity.WARNING,
    needs=("rdma", "machine", "gpu"),
)
def pcie_unlimited(node: NodeFacts) -> Verdict:
    """mlx5 tells at start when a slot or a bridge above the card carries less than the card could move.

    It matters where that is less than the port's rate. On a DGX Spark the line is always there.
    """
    answer, lines = _on_log(node, "available PCIe bandwidth, limited by")
    if answer is not None:
        return answer
    if is_spark(node):
        return skip("GB10: four lanes for each function are as built")

    def judge(line: str) -> Verdict:
        found = GIGABIT.search(line)
        device = next((item for item in node.rdma.devices or () if item.pci and item.pci in line), None)
        if found is None or device is None:
            return ok("kernel log: of no RDMA device here")
        said = f"{device.name}: {found[1]} Gb/s, its ports need {_needed(device):g}"
        return warn(f"{said}: {line}", _slot(device)) if float(found[1]) < _needed(device) else ok(said)

    return worst(judge(line) for line in lines)


@check(
    "rdma.slot-power",
    "RDMA cards have enough power from their slot",
    severity=Severity.WARNING,
    needs=("rdma", "machine", "gpu"),
)
def slot_power(node: NodeFacts) -> Verdict:
    """A card that asks for more power than its slot gives turns its optical modules off under load.

    On a DGX Spark the line names 27 W and means nothing.
    """
    answer, lines = _on_log(node, "insufficient power on the PCIe slot")
    if answer is not None:
        return answer
    if is_spark(node):
        return skip("GB10: the kernel always says 27 W, and it means nothing")
    return warn(lines[-1], "move the card to a slot that gives 75 W, or connect its power cable")


@check("rdma.module-cool", "cable modules are cool", severity=Severity.WARNING, needs=LOG)
def module_cool(node: NodeFacts) -> Verdict:
    """An optical module that is too hot drops its link without warning."""
    answer, lines = _on_log(node, "High Temperature")
    return answer or warn(lines[-1], f"sudo mlxlink -d {_pci(lines[-1])} -m | grep -i temp  # check the airflow")


@check("rdma.module-sound", "cards understand their cable modules", severity=Severity.WARNING, needs=LOG)
def module_sound(node: NodeFacts) -> Verdict:
    """The card's firmware reports modules that it cannot read, does not support or cannot feed."""
    answer, lines = _on_log(node, r"Port module event\[error\](?!.*High Temperature)")
    return answer or warn(lines[-1], "replace the cable or module with one that the card's firmware notes list")


@check("rdma.health", "no RDMA card has reported a fault of its own", needs=LOG)
def health(node: NodeFacts) -> Verdict:
    """mlx5 watches the card's firmware. After these lines the card was reset at best, and is gone at worst."""
    answer, lines = _on_log(
        node, r"health compromised|Fatal error \d|firmware internal error|device is in internal error"
    )
    return answer or fail(lines[-1], "sudo reboot  # if it comes back: update the firmware, then replace the card")


@check("rdma.firmware-equal", "equal RDMA cards have equal firmware", severity=Severity.WARNING, needs=RDMA)
def firmware_equal(node: NodeFacts) -> Verdict:
    """Cards with different firmware may differ in defaults for congestion control and link training."""
    if (none := without_rdma(node)) is not None:
        return none
    kinds: dict[str, dict[str, list[str]]] = {}
    for device in node.rdma.devices or ():
        if device.board_id and device.fw_ver:
            kinds.setdefault(device.board_id, {}).setdefault(device.fw_ver, []).append(device.name)
    if not kinds:
        return unknown("board_id and fw_ver were not read")
    uneven = {kind: versions for kind, versions in kinds.items() if len(versions) > 1}
    if uneven:
        kind, versions = next(iter(uneven.items()))
        said = "; ".join(f"{fw} on {listed(names)}" for fw, names in versions.items())
        return warn(f"{kind}: {said}", "sudo mlxfwmanager --online -u  # then reboot")
    return ok(listed(f"{kind} {next(iter(versions))}" for kind, versions in kinds.items()))


@check("rdma.numa-known", "each RDMA card's NUMA node is known", severity=Severity.WARNING, needs=LOG)
def numa_known(node: NodeFacts) -> Verdict:
    """On a machine of several sockets NCCL pairs GPUs with the cards of their socket. Where it cannot, it guesses."""
    if (none := without_rdma(node)) is not None:
        return none
    if node.machine.numa_nodes is not None and node.machine.numa_nodes < 2:
        return skip("one NUMA node")

    def judge(device: RdmaDevice) -> Verdict:
        if device.pci is None:
            return skip(f"{device.name} is no PCI device")
        if device.numa_node is None:
            return unknown(f"{device.name}: device/numa_node was not read")
        if device.numa_node < 0:
            mend = "enable NUMA in the BIOS; in a container: -v /sys:/sys:ro"
            return warn(f"{device.name}: device/numa_node is -1", mend)
        return ok("known for every card")

    return each_device(node, judge)


@check(
    "rdma.near-gpus",
    "each socket with GPUs has a port of the fabric",
    severity=Severity.WARNING,
    needs=("rdma", "gpu", "machine", "env", "stack"),
)
def near_gpus(node: NodeFacts) -> Verdict:
    """GPUs without a card on their socket send everything over the link between sockets, without GPUDirect RDMA.

    A machine with fewer cards than sockets was built that way and raises no alarm.
    """
    if (none := without_rdma(node)) is not None:
        return none
    if node.machine.numa_nodes is not None and node.machine.numa_nodes < 2:
        return skip("one NUMA node")
    gpus = _known(gpu.numa_node for gpu in node.gpu.gpus or ())
    cards = _known(port.device.numa_node for port in fabric(node))
    if not gpus:
        return unknown("the GPUs' NUMA nodes were not read") if node.gpu.gpus else skip("no GPU on this machine")
    if len(gpus) < 2:
        return skip("GPUs on one socket")
    if not cards:
        return unknown("the cards' NUMA nodes were not read") if fabric(node) else skip("no ACTIVE port")
    far = gpus - cards
    count = len({port.device.sys_image_guid or port.device.name for port in fabric(node)})
    if count < len(gpus):
        return skip(f"{count} card(s) in the fabric for {len(gpus)} sockets with GPUs")
    if far:
        missing = listed(f"NUMA node {number}" for number in sorted(far))
        free = listed(port.label for port in ports(node) if port.device.numa_node in far)
        return warn(f"no fabric port on {missing}" + (f"; free there: {free}" if free else ""), "nvidia-smi topo -m")
    return ok(listed(f"NUMA node {number}" for number in sorted(gpus)))


def _known(numbers: Iterable[int | None]) -> set[int]:
    return {number for number in numbers if number is not None and number >= 0}


CHECKS: tuple[Check[NodeFacts], ...] = (
    pcie_width,
    pcie_speed,
    pcie_unlimited,
    slot_power,
    module_cool,
    module_sound,
    health,
    firmware_equal,
    numa_known,
    near_gpus,
)
