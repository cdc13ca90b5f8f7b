"""``nvidia-smi`` in all its forms, as rows of words by one set of names: those of ``--query-gpu``."""

import csv
import re
from collections.abc import Iterator

Row = dict[str, str]

# Heading path in `nvidia-smi -q` -> the name that --query-gpu has for it.
_QUERY = {
    "product name": "name",
    "gpu uuid": "uuid",
    "product architecture": "architecture",
    "persistence mode": "persistence_mode",
    "compute mode": "compute_mode",
    "minor number": "minor",
    "mig mode/current": "mig.mode.current",
    "pci/gpu link info/pcie generation/max": "pcie.link.gen.max",
    "pci/gpu link info/pcie generation/current": "pcie.link.gen.current",
    "pci/gpu link info/link width/max": "pcie.link.width.max",
    "pci/gpu link info/link width/current": "pcie.link.width.current",
    "fb memory usage/total": "memory.total",
    "fb memory usage/used": "memory.used",
    "bar1 memory usage/total": "bar1.total",
    "utilization/gpu": "utilization.gpu",
    "temperature/gpu current temp": "temperature.gpu",
    "temperature/gpu slowdown temp": "temperature.slowdown",
    "temperature/gpu t.limit temp": "temperature.left",
    "temperature/gpu slowdown t.limit temp": "temperature.slowdown_left",
    "gpu power readings/average power draw": "power.draw",
    "gpu power readings/power draw": "power.draw",
    "power readings/power draw": "power.draw",
    "ecc errors/volatile/sram uncorrectable": "ecc.u.sram",
    "ecc errors/volatile/sram uncorrectable parity": "ecc.u.sram_parity",
    "ecc errors/volatile/sram uncorrectable sec-ded": "ecc.u.sram_secded",
    "ecc errors/volatile/dram uncorrectable": "ecc.u.dram",
    "ecc errors/volatile/double bit/total": "ecc.u.double",
    "ecc errors/volatile/sram correctable": "ecc.c.sram",
    "ecc errors/volatile/dram correctable": "ecc.c.dram",
    "ecc errors/volatile/single bit/total": "ecc.c.single",
    "remapped rows/pending": "remap.pending",
    "remapped rows/remapping failure occurred": "remap.failure",
    "fabric/state": "fabric.state",
    "fabric/status": "fabric.status",
}
_ALIASES = {
    "ecc.errors.uncorrected.volatile.total": "ecc.u.total",
    "ecc.errors.corrected.volatile.total": "ecc.c.total",
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "remapped_rows.pending": "remap.pending",
    "remapped_rows.failure": "remap.failure",
    "clocks_throttle_reasons.active": "clocks_event_reasons.active",
}


def full(text: str) -> tuple[Row, list[Row]]:
    """``nvidia-smi -q``: what stands before the first GPU, and a row for each GPU; ``throttle``: active reasons."""
    head, *blocks = re.split(r"^GPU (?=[0-9A-Fa-f]{4,8}:)", text, flags=re.MULTILINE)
    before = dict(re.findall(r"^([A-Z][\w /]*?)\s+: (.+)$", head, re.MULTILINE))
    found = []
    for position, block in enumerate(blocks):
        first, _, rest = block.partition("\n")
        row = {"index": str(position), "pci.bus_id": first.strip(), "throttle": ""}
        for path, value in _paths(rest):
            name = _QUERY.get(path)
            if name:
                row.setdefault(name, value)
            elif re.match(r"clocks (event|throttle) reasons/", path) and value == "Active":
                row["throttle"] += path.partition("/")[2].split("/")[-1] + "\n"
        found.append(row)
    return before, found


def _paths(text: str) -> Iterator[tuple[str, str]]:
    """Each ``name : value`` under its headings, which are told by indentation: ``ecc mode/current``."""
    headings: list[tuple[int, str]] = []
    for line in text.splitlines():
        name, colon, value = line.partition(" : ")
        depth = len(line) - len(line.lstrip())
        while headings and headings[-1][0] >= depth:
            headings.pop()
        if colon:
            yield "/".join([*(word for _, word in headings), name.strip().lower()]), value.strip()
        elif line.strip():
            headings.append((depth, line.strip().rstrip(":").lower()))


def table(text: str, columns: tuple[str, ...]) -> list[Row]:
    """``--query-gpu``'s CSV. Without a header the columns are the command's; a header's ``[MiB]`` is dropped."""
    read = [[cell.strip() for cell in line] for line in _csv(text)]
    if not read:
        return []
    names = [_name(cell) for cell in read[0]]
    if any(_name(column) in names for column in columns) or {"name", "uuid", "pci.bus_id"} & set(names):
        read = read[1:]
    else:
        names = [_name(column) for column in columns]
    return [dict(zip(names, cells, strict=False)) for cells in read if len(cells) == len(names)]


def _csv(text: str) -> list[list[str]]:
    try:
        return [line for line in csv.reader(text.replace("\0", "").splitlines(), skipinitialspace=True) if line]
    except csv.Error:
        return []


def _name(cell: str) -> str:
    word = re.sub(r"\s*\[.*?\]", "", cell).strip().lower()
    return _ALIASES.get(word, word)


def columns(argv: list[str], option: str) -> tuple[str, ...]:
    """The columns that a command asked for: ``--query-gpu=index,name``."""
    asked = next((word.partition("=")[2] for word in argv if word.startswith(f"{option}=")), "")
    if not asked and option in argv[:-1]:
        asked = argv[argv.index(option) + 1]
    return tuple(word.strip() for word in asked.split(",") if word.strip())


def screen(text: str) -> tuple[Row, list[Row]]:
    """Plain ``nvidia-smi``: driver and CUDA of its head, and each GPU's name, address, memory, load and temperature."""
    head = re.search(r"Driver Version: (\S+)\s+CUDA Version: (\S+)", text)
    before = {"Driver Version": head.group(1), "CUDA Version": head.group(2)} if head else {}
    gpu = re.compile(
        r"^\|\s+(\d{1,4})\s+(\S.*?)\s+(On|Off|N/A)\s+\|\s+([0-9A-Fa-f:.]{7,16})\s.*\n"
        r"\|\s*\S+\s+(\S+)C?\s+P\S+\s+.*?\|\s*(\S+)\s*/\s*(\S+)\s*\|\s*(\S+)%?\s",
        re.MULTILINE,
    )
    names = ("index", "name", "persistence_mode", "pci.bus_id", "temperature.gpu", "memory.used", "memory.total")
    return before, [dict(zip((*names, "utilization.gpu"), row, strict=True)) for row in gpu.findall(text)]


def listed(text: str) -> list[Row]:
    """``nvidia-smi -L``."""
    found = re.findall(r"^GPU (\d{1,4}): (.+?) \(UUID: ([^)]+)\)", text, re.MULTILINE)
    return [dict(zip(("index", "name", "uuid"), row, strict=True)) for row in found]


def running(text: str) -> list[Row]:
    """Processes of plain ``nvidia-smi``: ``|    0   N/A  N/A   1234      C   python   512MiB |``."""
    line = r"^\|\s+(\d{1,4})\s+\S+\s+\S+\s+(\d{1,10})\s+[CGM+]+\s+(\S.*?)\s+(\d+MiB|N/A)\s+\|"
    return [
        dict(zip(("index", "pid", "name", "used_memory"), row, strict=True))
        for row in re.findall(line, text, re.MULTILINE)
    ]


def links(text: str) -> dict[int, dict[int, str]]:
    """``nvidia-smi nvlink -s``: by GPU and link, ``26.562 GB/s`` or ``<inactive>``."""
    found: dict[int, dict[int, str]] = {}
    gpu = -1
    for line in text.splitlines():
        if begin := re.match(r"GPU (\d{1,4}):", line):
            gpu = int(begin.group(1))
        elif (item := re.match(r"\s*Link (\d{1,3}): (.+)", line)) and gpu >= 0:
            found.setdefault(gpu, {})[int(item.group(1))] = item.group(2).strip()
    return found


def link_errors(text: str) -> dict[int, dict[int, int]]:
    """``nvidia-smi nvlink -e``: by GPU and link, all its errors together."""
    found: dict[int, dict[int, int]] = {}
    gpu = -1
    for line in text.splitlines():
        if begin := re.match(r"GPU (\d{1,4}):", line):
            gpu = int(begin.group(1))
        elif (item := re.match(r"\s*Link (\d{1,3}): .*?Errors?: (\d{1,18})", line)) and gpu >= 0:
            link = int(item.group(1))
            by_link = found.setdefault(gpu, {})
            by_link[link] = by_link.get(link, 0) + int(item.group(2))
    return found
