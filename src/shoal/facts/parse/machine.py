"""Kernel, limits, memory, clock, modules and names, from ``/proc``, ``/sys`` and a few commands."""

import re
from collections.abc import Iterator, Mapping

from shoal.facts.machine import Disk, MachineFacts, PciBridge, Stuck
from shoal.facts.meminfo import parse_meminfo
from shoal.facts.parse import clock, limits
from shoal.facts.parse.text import first_line, known, missing, output, outputs, whole
from shoal.host.snapshot import Snapshot

SYSCTL = "/proc/sys/"
DMI = "/sys/class/dmi/id"
CPU = "/sys/devices/system/cpu"
NUMA = "/sys/devices/system/node"
SHM = "/dev/shm"  # noqa: S108 (looked at)
SMALL = 1 << 30  # bytes; a smaller file system is no place for a model or a cache
UNITS = {"-b": 1, "-k": 1 << 10, "-m": 1 << 20, "-g": 1 << 30}
# What a virtual machine's firmware calls itself.
HYPERVISORS = ("QEMU", "KVM", "VMware", "VirtualBox", "Bochs", "Xen", "Amazon EC2", "Google Compute", "Virtual Machine")


def parse_machine(snapshot: Snapshot) -> MachineFacts:
    """The machine's own settings, as far as the snapshot has them."""
    name = hostname(snapshot)
    mounted = disks(snapshot)
    shm = next((disk for disk in mounted if disk.path == SHM), None)
    return MachineFacts(
        hostname=name,
        hostname_addresses=_resolved(snapshot, name),
        machine_id=known(snapshot.word("/etc/machine-id")),
        os=_os(snapshot),
        kernel=snapshot.word("/proc/sys/kernel/osrelease") or _uname(snapshot, 2, "-r"),
        architecture=_architecture(snapshot),
        cmdline=snapshot.word("/proc/cmdline"),
        product=known(snapshot.word(f"{DMI}/product_name")) or known(snapshot.word("/proc/device-tree/model")),
        bios=known(snapshot.word(f"{DMI}/bios_version")),
        virtual=_virtual(snapshot),
        uptime=clock.uptime(snapshot),
        reboot_required=snapshot.exists("/run/reboot-required"),
        limits=limits.parse_limits(snapshot),
        memory=_memory(snapshot),
        shm_total=shm.total if shm else None,
        shm_free=shm.free if shm else None,
        disks=tuple(disk for disk in mounted if disk is not shm),
        cpus=_cpus(snapshot),
        numa_nodes=_numa_nodes(snapshot),
        modules=_modules(snapshot),
        module_versions=_module_versions(snapshot),
        ofed=_ofed(snapshot),
        sysctls=sysctls(snapshot),
        governor=known(snapshot.word(f"{CPU}/cpu0/cpufreq/scaling_governor")),
        clocksource=known(snapshot.word("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        clock_synchronised=clock.synchronised(snapshot),
        clock=snapshot.taken,
        clock_offset=clock.offset(snapshot),
        iommu=_iommu(snapshot),
        bridges=_bridges(snapshot),
        kernel_log=kernel_log(snapshot),
        stuck=_stuck(snapshot),
        transparent_hugepages=_chosen(snapshot.word("/sys/kernel/mm/transparent_hugepage/enabled")),
        default_route_wireless=_default_wireless(snapshot),
        selinux=_selinux(snapshot),
    )


def hostname(snapshot: Snapshot) -> str | None:
    """Its name by the kernel, else by ``hostname`` or ``uname``."""
    return (
        known(snapshot.word("/proc/sys/kernel/hostname"))
        or known(snapshot.word("/etc/hostname"))
        or first_line(output(snapshot, "hostname"))
        or _uname(snapshot, 1, "-n")
    )


def _uname(snapshot: Snapshot, field: int, option: str) -> str | None:
    """One word of ``uname -a``, or all that ``uname -r`` and its like print."""
    alone = first_line(output(snapshot, "uname", option))
    words = (first_line(output(snapshot, "uname", "-a")) or "").split()
    return alone or (words[field] if len(words) > field else None)


def _architecture(snapshot: Snapshot) -> str | None:
    alone = first_line(output(snapshot, "uname", "-m")) or known(snapshot.word("/proc/sys/kernel/arch"))
    words = (first_line(output(snapshot, "uname", "-a")) or "").split()
    return alone or next((word for word in words if word in {"x86_64", "aarch64"}), None)


def _resolved(snapshot: Snapshot, name: str | None) -> tuple[str, ...] | None:
    """What the machine's own name resolves to: by ``getent``, else by /etc/hosts where that names it."""
    for argv, reply in snapshot.replies_of("getent"):
        if name and argv[1:] and argv[1] in {"hosts", "ahosts", "ahostsv4"} and name in argv:
            return tuple(dict.fromkeys(line.split()[0] for line in reply.out.splitlines() if line.split()))
    lines = (line.partition("#")[0].split() for line in (snapshot.read("/etc/hosts") or "").splitlines())
    return tuple(dict.fromkeys(words[0] for words in lines if name and name in words[1:])) or None


def _os(snapshot: Snapshot) -> str | None:
    text = snapshot.read("/etc/os-release") or snapshot.read("/usr/lib/os-release") or ""
    found = re.search(r"^PRETTY_NAME=[\"']?([^\"'\n]+)", text, re.MULTILINE)
    return found.group(1) if found else None


def _virtual(snapshot: Snapshot) -> str | None:
    """The hypervisor; empty on bare metal, None where nothing tells."""
    said = next(
        (reply.out.strip() for _, reply in snapshot.replies_of("systemd-detect-virt") if reply.code in {0, 1}), ""
    )
    if said:
        return "" if said == "none" else said
    dmi = " ".join(snapshot.word(f"{DMI}/{name}") or "" for name in ("sys_vendor", "product_name", "bios_vendor"))
    named = next((name for name in HYPERVISORS if name in dmi), None)
    cpu = snapshot.read("/proc/cpuinfo")
    if named or (cpu and re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE)):
        return named or "hypervisor"
    return "" if dmi.strip() and cpu else None


def _memory(snapshot: Snapshot) -> dict[str, int]:
    """/proc/meminfo in bytes, else what ``free`` says of the whole."""
    return parse_meminfo(snapshot.read("/proc/meminfo") or "") or _free(snapshot)


def _free(snapshot: Snapshot) -> dict[str, int]:
    """``free`` counts in KiB, or in what its option says."""
    for argv, reply in snapshot.replies_of("free"):
        scale = next((unit for option, unit in UNITS.items() if option in argv), 1 << 10)
        found = re.search(r"^Mem:\s+(\d{1,18})\s+(?:\d+\s+){4}(\d{1,18})", reply.out, re.MULTILINE)
        if found:
            return {"MemTotal": int(found.group(1)) * scale, "MemAvailable": int(found.group(2)) * scale}
    return {}


def disks(snapshot: Snapshot) -> tuple[Disk, ...]:
    """File systems as any ``df`` printed them, each mount once; small ones are left out."""
    found: dict[str, Disk] = {}
    for _, reply in snapshot.replies_of("df"):
        for disk in _df(reply.out):
            if disk.total >= SMALL or disk.path == SHM:
                found.setdefault(disk.path, disk)
    return tuple(found.values())


def _df(text: str) -> Iterator[Disk]:
    """``df`` in blocks of 1024 bytes, or of what its header says; with or without the type."""
    lines = text.splitlines()
    head = lines[0] if lines else ""
    unit = re.search(r"\b(\d{1,9})([KMG]?)B?-blocks", head)
    scale = int(unit.group(1)) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit.group(2)] if unit else 1
    typed = " Type" in head
    for line in lines[1:]:
        words = line.split(None, 6 if typed else 5)
        sizes = [_size(word, scale) for word in words[1 + typed : 4 + typed]]
        if len(words) == 6 + typed and None not in sizes:
            total, _, free = (int(size or 0) for size in sizes)
            yield Disk(words[-1], total, free, words[1] if typed else "")


def _size(word: str, scale: int) -> int | None:
    """A number of blocks, or a size for people: ``252G``."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,3})?)([KMGTP]?)i?B?", word)
    if not found:
        return None
    power = " KMGTP".index(found.group(2)) if found.group(2) else 0
    return int(float(found.group(1)) * 1024**power) if power else int(float(found.group(1)) * scale)


def _cpus(snapshot: Snapshot) -> int | None:
    """How many CPUs are on line: ``0-3,5``."""
    ends = re.findall(r"(\d{1,6})(?:-(\d{1,6}))?", snapshot.word(f"{CPU}/online") or "")
    counted = sum(int(last or first) - int(first) + 1 for first, last in ends)
    return counted or whole(output(snapshot, "nproc"))


def _numa_nodes(snapshot: Snapshot) -> int | None:
    names = [name for name in snapshot.list(NUMA) or () if re.fullmatch(r"node\d+", name)]
    return len(names) or None


def _modules(snapshot: Snapshot) -> tuple[str, ...] | None:
    """Names of loaded modules, from /proc/modules, else ``lsmod``."""
    text = snapshot.read("/proc/modules")
    if text is None:
        text = next((said.partition("\n")[2] for said in outputs(snapshot, "lsmod")), None)
    if text is None:
        return None
    return tuple(sorted({line.split()[0] for line in text.splitlines() if line.split()}))


def _module_versions(snapshot: Snapshot) -> dict[str, str]:
    names = snapshot.list("/sys/module") or ()
    found = {name: snapshot.word(f"/sys/module/{name}/version") for name in names}
    return {name: version for name, version in found.items() if version}


def _ofed(snapshot: Snapshot) -> str | None:
    """The version of OFED; empty where the machine has no ``ofed_info``."""
    if missing(snapshot, "ofed_info"):
        return ""
    said = first_line(output(snapshot, "ofed_info"))
    return said.rstrip(":") if said else None


def sysctls(snapshot: Snapshot) -> Mapping[str, str]:
    """By dotted name, those below /proc/sys and those that ``sysctl`` printed."""
    found: dict[str, str] = {}
    for text in outputs(snapshot, "sysctl"):
        found |= {name: value.strip() for name, value in re.findall(r"^([\w./-]+)\s*=\s*(.*)$", text, re.MULTILINE)}
    for argv, reply in snapshot.replies_of("sysctl", "-n"):
        if reply.code == 0 and len(argv) == 3:
            found[argv[2]] = reply.out.strip()
    read = {path: text for path, text in snapshot.files.items() if path.startswith(SYSCTL)}
    return found | {path.removeprefix(SYSCTL).replace("/", "."): text.strip() for path, text in read.items()}


def sysctl(snapshot: Snapshot, name: str) -> str | None:
    """One of them. An interface's name may hold a dot: a path is asked, and not a name."""
    head, dot, rest = name.partition(".conf.")
    middle, _, last = rest.rpartition(".")
    path = f"{head.replace('.', '/')}/conf/{middle}/{last}" if dot else name.replace(".", "/")
    told = snapshot.word(SYSCTL + path)
    return told if told is not None else _said(snapshot, name)


def _said(snapshot: Snapshot, name: str) -> str | None:
    for text in outputs(snapshot, "sysctl"):
        found = re.search(rf"^{re.escape(name)}\s*=\s*(.*)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return None


def _iommu(snapshot: Snapshot) -> str | None:
    """The mode of the first group; empty where there is none."""
    groups = snapshot.list("/sys/kernel/iommu_groups")
    if groups is None:
        return None
    kinds = (snapshot.word(f"/sys/kernel/iommu_groups/{name}/type") for name in groups)
    return next((kind for kind in kinds if kind), None) if groups else ""


def _bridges(snapshot: Snapshot) -> tuple[PciBridge, ...] | None:
    """ACS of each PCI bridge by ``lspci -vvv``; None where only root could have read it."""
    text = next((said for word in ("-vvv", "-vv") for said in outputs(snapshot, "lspci", word)), None)
    if text is None or "<access denied>" in text:
        return None
    found = []
    for block in re.split(r"\n(?=[0-9a-f:]{5,12}\.[0-7] )", text):
        control = re.search(r"ACSCtl:\s*(.+)", block)
        address = re.match(r"[0-9a-f:.]+", block)
        if control and address and "PCI bridge" in block.partition("\n")[0]:
            on = tuple(word.rstrip("+") for word in control.group(1).split() if word.endswith("+"))
            found.append(PciBridge(_full(address.group()), on))
    return tuple(found)


def _full(address: str) -> str:
    return address if address.count(":") == 2 else f"0000:{address}"


def kernel_log(snapshot: Snapshot) -> tuple[str, ...] | None:
    """Lines of the kernel's log by ``dmesg`` or ``journalctl -k``; None where nobody may read it."""
    for program, *words in (("dmesg",), ("journalctl", "-k"), ("journalctl", "-kb"), ("journalctl", "--dmesg")):
        for _, reply in snapshot.replies_of(program, *words):
            if reply.code == 0:
                return tuple(line for line in reply.out.splitlines() if line.strip())
    return None


def processes(snapshot: Snapshot) -> list[dict[str, str]] | None:
    """Rows of ``ps -eo ...`` by the column's name in small letters; the last column may hold blanks."""
    text = output(snapshot, "ps")
    if text is None:
        return None
    head, *lines = text.splitlines()
    names = head.lower().split()
    split = (line.split(None, max(len(names) - 1, 0)) for line in lines)
    return [dict(zip(names, words, strict=True)) for words in split if len(words) == len(names)]


def _stuck(snapshot: Snapshot) -> tuple[Stuck, ...] | None:
    """Processes in state D or Z."""
    told = processes(snapshot)
    if told is None:
        return None
    # Who reads the machine starts commands: those that just ended wait for it.
    reader = next((row["ppid"] for row in told if row.get("command") == "ps" and "ppid" in row), None)
    told = [row for row in told if reader is None or row.get("ppid") != reader]
    return tuple(
        Stuck(int(row["pid"][:10]), row.get("command", ""), row["stat"][0])
        for row in told
        if row.get("stat", "")[:1] in {"D", "Z"} and whole(row.get("pid")) is not None
    )


def _chosen(text: str | None) -> str | None:
    """``madvise`` of ``always [madvise] never``."""
    found = re.search(r"\[(\w+)\]", text or "")
    return found.group(1) if found else None


def _default_wireless(snapshot: Snapshot) -> bool | None:
    from_route = re.search(r"^(\S+)\t00000000\t", snapshot.read("/proc/net/route") or "", re.MULTILINE)
    said = from_route or re.search(r"^default .*?\bdev (\S+)", output(snapshot, "ip", "route") or "", re.MULTILINE)
    if not said:
        return None
    base = f"/sys/class/net/{said.group(1)}"
    names = snapshot.list(base)
    if not names:
        return said.group(1).startswith("wl") or None
    return bool({"wireless", "phy80211"} & set(names)) or "DEVTYPE=wlan" in (snapshot.read(f"{base}/uevent") or "")


def _selinux(snapshot: Snapshot) -> str | None:
    """``enforcing`` or ``permissive``; empty where the kernel has no SELinux."""
    enforce = snapshot.word("/sys/fs/selinux/enforce")
    if enforce in {"0", "1"}:
        return "enforcing" if enforce == "1" else "permissive"
    said = (first_line(output(snapshot, "getenforce")) or "").lower()
    if said:
        return "" if said == "disabled" else said
    return "" if snapshot.exists("/sys/fs/selinux/enforce") is False else None
