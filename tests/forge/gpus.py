"""NVIDIA's GPUs as the kernel and nvidia-smi show them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.forge.tree import Tree

QUERY = "index,name,pci.bus_id,memory.total,driver_version"
APPS = "pid,process_name,used_memory,gpu_uuid"


@dataclass(frozen=True)
class Card:
    """One GPU. ``memory`` in MiB, 0 where the driver does not say (GB10)."""

    pci: str
    bridge: str
    name: str = "NVIDIA GB10"
    memory: int = 0
    numa: int = 0
    links: int = 0
    fabric: str = "N/A"
    ecc: bool = False
    lanes: int = 16
    generation: int = 5
    persistence: str = "Enabled"
    limit: int = 56  # degrees left to the limit

    @property
    def bus(self) -> str:
        """The address as nvidia-smi writes it."""
        return f"{int(self.pci[:4], 16):08X}:{self.pci[5:].upper()}"


def gpus(
    tree: Tree, cards: Sequence[Card], *, driver: str, cuda: str, open_modules: bool = True, peermem: bool = False
) -> None:
    """The driver, the cards on the bus and what nvidia-smi prints."""
    kind = "Open Kernel Module for x86_64" if open_modules else "x86_64 Kernel Module"
    tree.file(
        "/proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX {kind}  {driver}  Release Build\nGCC version:  13\n"
    )
    tree.file("/sys/module/nvidia/version", driver)
    tree.file("/run/nvidia-persistenced/nvidia-persistenced.pid", 901)
    if peermem:
        tree.file("/sys/module/nvidia_peermem/version", driver)
    for card in cards:
        folder = f"/sys/devices/{card.bridge}/{card.pci}"
        tree.folder(folder, **{"class": "0x030200"}, vendor="0x10de", numa_node=card.numa)
        tree.link(f"/sys/bus/pci/devices/{card.pci}", f"../../../devices/{card.bridge}/{card.pci}")
        tree.link(f"{folder}/driver", "../../../bus/pci/drivers/nvidia")
    _replies(tree, cards, driver, cuda)


def _replies(tree: Tree, cards: Sequence[Card], driver: str, cuda: str) -> None:
    full = "".join(_block(number, card) for number, card in enumerate(cards))
    head = f"Driver Version                            : {driver}\nCUDA Version                              : {cuda}\n"
    tree.reply(
        "nvidia-smi -q", f"\n==============NVSMI LOG==============\n\n{head}\nAttached GPUs : {len(cards)}\n{full}"
    )
    rows = (
        f"{number}, {card.name}, {card.bus}, {f'{card.memory} MiB' if card.memory else '[N/A]'}, {driver}\n"
        for number, card in enumerate(cards)
    )
    tree.reply(f"nvidia-smi --query-gpu={QUERY} --format=csv,noheader", "".join(rows))
    tree.reply(f"nvidia-smi --query-compute-apps={APPS} --format=csv,noheader")
    status = "".join(_links(number, card, "26.562 GB/s") for number, card in enumerate(cards))
    errors = "".join(_links(number, card, "Replay Errors: 0") for number, card in enumerate(cards))
    tree.reply("nvidia-smi nvlink -s", status)
    tree.reply("nvidia-smi nvlink -e", errors)
    switched = any(card.fabric == "Completed" for card in cards)
    tree.reply(
        "systemctl is-active nvidia-fabricmanager", "active\n" if switched else "inactive\n", 0 if switched else 3
    )
    tree.reply("nvidia-smi topo -m", "\tGPU0\nGPU0\t X \n")


def _links(number: int, card: Card, said: str) -> str:
    lines = "".join(f"\t Link {link}: {said}\n" for link in range(card.links))
    return f"GPU {number}: {card.name} (UUID: {_uuid(card)})\n{lines}"


def _uuid(card: Card) -> str:
    return f"GPU-{card.pci.replace(':', '').replace('.', '')}-0000-4000-8000-000000000000"


def _block(number: int, card: Card) -> str:
    """One GPU of ``nvidia-smi -q``, shortened to what the doctor reads."""
    memory = f"{card.memory} MiB" if card.memory else "N/A"
    count = "0" if card.ecc else "N/A"
    no = "No" if card.ecc else "N/A"
    limit = f"{card.limit} C" if card.memory else "N/A"
    lanes = (f"{card.lanes}x", "16x") if card.memory else ("N/A", "N/A")
    rows = [
        f"GPU {card.bus}",
        f"    Product Name                          : {card.name}",
        f"    Persistence Mode                      : {card.persistence}",
        "    MIG Mode",
        f"        Current                           : {'Disabled' if card.ecc else 'N/A'}",
        f"    GPU UUID                              : {_uuid(card)}",
        f"    Minor Number                          : {number}",
        "    PCI",
        f"        Bus Id                            : {card.bus}",
        "        GPU Link Info",
        "            PCIe Generation",
        f"                Max                       : {5 if card.memory else 'N/A'}",
        f"                Current                   : {card.generation if card.memory else 'N/A'}",
        "            Link Width",
        f"                Max                       : {lanes[1]}",
        f"                Current                   : {lanes[0]}",
        "    Clocks Event Reasons",
        "        Idle                              : Active",
        "        SW Power Cap                      : Not Active",
        "        HW Slowdown                       : Not Active",
        "            HW Thermal Slowdown           : Not Active",
        "            HW Power Brake Slowdown       : Not Active",
        "    FB Memory Usage",
        f"        Total                             : {memory}",
        f"        Used                              : {'4 MiB' if card.memory else 'N/A'}",
        "    BAR1 Memory Usage",
        f"        Total                             : {f'{2 * card.memory} MiB' if card.memory else 'N/A'}",
        "    Compute Mode                          : Default",
        "    Utilization",
        "        GPU                               : 0 %",
        "    ECC Errors",
        "        Volatile",
        f"            SRAM Correctable              : {count}",
        f"            SRAM Uncorrectable Parity     : {count}",
        f"            DRAM Correctable              : {count}",
        f"            DRAM Uncorrectable            : {count}",
        "    Remapped Rows",
        f"        Pending                           : {no}",
        f"        Remapping Failure Occurred        : {no}",
        "    Temperature",
        "        GPU Current Temp                  : 34 C",
        f"        GPU T.Limit Temp                  : {limit}",
        f"        GPU Slowdown T.Limit Temp         : {'-2 C' if card.memory else 'N/A'}",
        "    GPU Power Readings",
        "        Average Power Draw                : 12.00 W",
        "    Fabric",
        f"        State                             : {card.fabric}",
        f"        Status                            : {'Success' if card.fabric == 'Completed' else 'N/A'}",
        "    Processes                             : None",
        "",
    ]
    return "\n".join(rows)


def switches(tree: Tree, addresses: Sequence[tuple[str, str]]) -> None:
    """NVSwitches on the bus: address and root."""
    for pci, bridge in addresses:
        tree.folder(f"/sys/devices/{bridge}/{pci}", **{"class": "0x068000"}, vendor="0x10de")
        tree.link(f"/sys/bus/pci/devices/{pci}", f"../../../devices/{bridge}/{pci}")
