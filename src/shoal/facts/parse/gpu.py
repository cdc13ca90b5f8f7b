"""GPUs from every form of ``nvidia-smi``, with what the kernel says of the driver and of the cards."""

import re
from collections.abc import Mapping

from shoal.facts.gpu import Gpu, GpuFacts, GpuProcess, NvLink
from shoal.facts.parse import smi
from shoal.facts.parse.machine import kernel_log
from shoal.facts.parse.rdma import PCI, cards, drivers
from shoal.facts.parse.text import flag, known, leading, missing, number, outputs
from shoal.host.snapshot import Snapshot

SMI = "nvidia-smi"
NVIDIA = "0x10de"
SWITCH_CLASS = "0x0680"
# Reasons that slow a GPU because something is wrong; a power cap and idling are none.
SLOW = ("HW Slowdown", "HW Thermal Slowdown", "HW Power Brake Slowdown", "SW Thermal Slowdown")
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d{1,5})\b")
PROCESSES = "--query-compute-apps"


def parse_gpu(snapshot: Snapshot) -> GpuFacts:
    """All GPUs of a snapshot."""
    head, rows = _rows(snapshot)
    absent = missing(snapshot, SMI)
    version = _version(snapshot)
    log = kernel_log(snapshot)
    links = _nvlinks(snapshot)
    gpus = None if rows is None else tuple(_gpu(snapshot, row, links) for row in rows)
    return GpuFacts(
        gpus,
        installed=None if absent is None else not absent,
        trouble=_trouble(snapshot),
        driver=head.get("Driver Version"),
        kernel_driver=known(snapshot.word("/sys/module/nvidia/version")) or version,
        open_module=_open(snapshot),
        cuda=known(head.get("CUDA Version")),
        processes=_processes(snapshot),
        topology=next(outputs(snapshot, SMI, "topo", "-m"), None),
        cards=(found := _cards(snapshot)),
        card_drivers=drivers(snapshot, found or ()),
        peermem=_loaded(snapshot),
        persistenced=snapshot.exists("/run/nvidia-persistenced/nvidia-persistenced.pid"),
        fabric_manager=_unit(snapshot, "nvidia-fabricmanager"),
        switches=_switches(snapshot),
        xids=None if log is None else tuple(_xids(log)),
        sxids=None if log is None else tuple(line for line in log if "SXid" in line),
        imex=_imex(snapshot),
    )


def _rows(snapshot: Snapshot) -> tuple[dict[str, str], list[smi.Row] | None]:
    """What all forms said, joined by the GPUs' order: ``-q`` first, then CSV, the screen, the list."""
    head: dict[str, str] = {}
    joined: dict[str, smi.Row] = {}
    answered = False
    for before, rows in _forms(snapshot):
        answered = True
        head |= {name: value for name, value in before.items() if name not in head}
        for position, row in enumerate(rows):
            joined[row.get("index", str(position))] = row | joined.get(row.get("index", str(position)), {})
    for row in joined.values():
        head.setdefault("Driver Version", row.get("driver_version", ""))
    head = {name: value for name, value in head.items() if value}
    return head, list(joined.values()) if answered else None


def _forms(snapshot: Snapshot) -> list[tuple[dict[str, str], list[smi.Row]]]:
    """Each reply of nvidia-smi that tells of GPUs, read by its form; the fullest first."""
    found: list[tuple[int, tuple[dict[str, str], list[smi.Row]]]] = []
    for argv, reply in snapshot.replies_of(SMI):
        words = list(argv)
        asked = smi.columns(words, "--query-gpu")
        if reply.code != 0 and "No devices were found" not in reply.out:
            continue
        if asked:
            found.append((1, ({}, smi.table(reply.out, asked))))
        elif {"-q", "--query"} & set(words):
            found.append((0, smi.full(reply.out)))
        elif "-L" in words or "--list-gpus" in words:
            found.append((3, ({}, smi.listed(reply.out))))
        elif len(words) == 1:
            found.append((2, smi.screen(reply.out)))
    return [form for _, form in sorted(found, key=lambda item: item[0])]


def _gpu(snapshot: Snapshot, row: smi.Row, links: Mapping[int, tuple[NvLink, ...]] | None) -> Gpu:
    index = leading(row.get("index")) or 0
    pci = bus_id(row.get("pci.bus_id"))
    device = f"{PCI}/{pci}"
    node = leading(snapshot.word(f"{device}/numa_node")) if pci else None
    return Gpu(
        index,
        row.get("name", ""),
        leading(row.get("memory.total")),
        used_mib=leading(row.get("memory.used")),
        bar1_mib=leading(row.get("bar1.total")),
        uuid=known(row.get("uuid")),
        pci=pci,
        architecture=known(row.get("architecture")),
        persistence=flag(row.get("persistence_mode")),
        compute_mode=known(row.get("compute_mode")),
        mig=flag(row.get("mig.mode.current")),
        ecc_uncorrected=_sum(row, "ecc.u."),
        ecc_corrected=_sum(row, "ecc.c."),
        remap_pending=flag(row.get("remap.pending")),
        remap_failure=flag(row.get("remap.failure")),
        temperature_c=leading(row.get("temperature.gpu")),
        slowdown_c=_slowdown(row),
        power_w=number(row.get("power.draw")),
        utilisation=leading(row.get("utilization.gpu")),
        pcie_width=leading(row.get("pcie.link.width.current")),
        pcie_width_max=leading(row.get("pcie.link.width.max")),
        pcie_gen=leading(row.get("pcie.link.gen.current")),
        pcie_gen_max=leading(row.get("pcie.link.gen.max")),
        throttle=_throttle(row),
        fabric_state=row.get("fabric.state"),
        fabric_status=row.get("fabric.status"),
        numa_node=node,
        nvlinks=None if links is None else links.get(index, ()),
        iommu_group=snapshot.target(f"{device}/iommu_group") if pci else None,
    )


def bus_id(text: str | None) -> str | None:
    """``0000:18:00.0`` of ``00000000:18:00.0``, as the kernel writes it."""
    found = re.fullmatch(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])", (text or "").strip())
    if not found:
        return None
    domain = found.group(1).lower()
    return f"{domain[-4:] if domain[:-4].strip('0') == '' else domain}:{found.group(2).lower()}"


def _sum(row: smi.Row, prefix: str) -> int | None:
    """The total where it was asked, else the sum of the parts that are known."""
    total = leading(row.get(f"{prefix}total"))
    parts = [leading(value) for name, value in row.items() if name.startswith(prefix) and name != f"{prefix}total"]
    sure = [part for part in parts if part is not None]
    return sum(sure) if total is None and sure else total


def _slowdown(row: smi.Row) -> int | None:
    """Degrees at which it slows down. New drivers say how many degrees are left to each limit instead."""
    at = leading(row.get("temperature.slowdown"))
    now, left, limit = (leading(row.get(f"temperature.{name}")) for name in ("gpu", "left", "slowdown_left"))
    if at is not None or now is None or left is None or limit is None:
        return at
    return now + left - limit


def _throttle(row: smi.Row) -> tuple[str, ...] | None:
    if "throttle" not in row:
        return None
    active = set(row["throttle"].lower().splitlines())
    return tuple(word for word in SLOW if word.lower() in active)


def _trouble(snapshot: Snapshot) -> str:
    """What nvidia-smi said where it failed though it is there."""
    failed = (reply for _, reply in snapshot.replies_of(SMI) if reply.code not in {0, 127})
    said = ((reply.out.strip() or reply.err.strip()) for reply in failed)
    return next((text.splitlines()[0] for text in said if text and "No devices were found" not in text), "")


def _version(snapshot: Snapshot) -> str | None:
    found = re.search(
        r"Kernel Module\s+(?:for \S+\s+)?(\d{3}[\d.]+)", snapshot.read("/proc/driver/nvidia/version") or ""
    )
    return found.group(1) if found else None


def _open(snapshot: Snapshot) -> bool | None:
    text = snapshot.read("/proc/driver/nvidia/version")
    return None if text is None else "Open Kernel Module" in text


def _processes(snapshot: Snapshot) -> tuple[GpuProcess, ...] | None:
    for argv, reply in snapshot.replies_of(SMI):
        asked = smi.columns(list(argv), PROCESSES)
        if asked and reply.code == 0:
            rows = smi.table(reply.out, asked)
            return tuple(item for item in map(_process, rows) if item)
    for argv, reply in snapshot.replies_of(SMI):
        if len(argv) == 1 and reply.code == 0:
            return tuple(item for item in map(_process, smi.running(reply.out)) if item)
    return None


def _process(row: smi.Row) -> GpuProcess | None:
    pid = leading(row.get("pid"))
    name = row.get("process_name") or row.get("name") or ""
    used = leading(row.get("used_gpu_memory") or row.get("used_memory"))
    return None if pid is None else GpuProcess(pid, name, used, row.get("uuid"))


def _cards(snapshot: Snapshot) -> tuple[str, ...] | None:
    if snapshot.list(PCI) is None and not list(snapshot.replies_of("lspci")):
        return None
    return tuple(address for address, vendor in cards(snapshot, "0x03").items() if vendor == NVIDIA)


def _switches(snapshot: Snapshot) -> int | None:
    """NVSwitches: bridges of NVIDIA's that are no PCI bridge."""
    if snapshot.list(PCI) is None:
        return None
    return sum(vendor == NVIDIA for vendor in cards(snapshot, SWITCH_CLASS).values())


def _loaded(snapshot: Snapshot) -> bool | None:
    """The files that NCCL itself looks at to know of peer memory."""
    seen = [
        snapshot.exists("/sys/module/nvidia_peermem/version"),
        snapshot.exists("/sys/kernel/mm/memory_peers/nv_mem/version"),
        snapshot.exists("/sys/module/nvidia_peermem"),
    ]
    return True if True in seen else False if seen[0] is False else _by_modules(snapshot)


def _by_modules(snapshot: Snapshot) -> bool | None:
    modules = snapshot.read("/proc/modules")
    return None if modules is None else bool(re.search(r"^nvidia_peermem\b", modules, re.MULTILINE))


def _unit(snapshot: Snapshot, unit: str) -> str | None:
    """A unit's state by ``systemctl is-active``, which ends with 3 for those that are not."""
    for argv, reply in snapshot.replies_of("systemctl", "is-active"):
        if any(word.removesuffix(".service") == unit for word in argv):
            return reply.out.strip() or None
    return None


def _xids(log: tuple[str, ...]) -> list[tuple[str, int, str]]:
    return [(found.group(1), int(found.group(2)), line) for line in log if (found := XID.search(line))]


def _imex(snapshot: Snapshot) -> str | None:
    for _, reply in snapshot.replies_of("nvidia-imex-ctl"):
        if reply.code != 127:
            return (reply.out or reply.err).strip() or None
    return None


def _nvlinks(snapshot: Snapshot) -> dict[int, tuple[NvLink, ...]] | None:
    told = next((text for word in ("-s", "--status") for text in outputs(snapshot, SMI, "nvlink", word)), None)
    if told is None:
        return None
    errors = smi.link_errors(
        next((text for word in ("-e", "--errorcounters") for text in outputs(snapshot, SMI, "nvlink", word)), "")
    )
    return {
        gpu: tuple(_nvlink(index, said, errors.get(gpu)) for index, said in rows.items())
        for gpu, rows in smi.links(told).items()
    }


def _nvlink(index: int, said: str, errors: Mapping[int, int] | None) -> NvLink:
    return NvLink(index, "inactive" not in said.lower(), number(said), None if errors is None else errors.get(index))
