"""Processes of this machine: which one an id means, and which folders one uses."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.host.base import Host

# What may stand before and after a path in a command line: nothing that makes it the path of something else.
EDGES = (r"(?<![\w./-])", r"(?![\w.-])")


@dataclass(frozen=True)
class Stat:
    """What the kernel says of one process: its state's letter, and its start in clock ticks since the boot."""

    state: str
    ticks: int

    @property
    def ended(self) -> bool:
        """Whether it has ended and only waits to be collected."""
        return self.state in {"Z", "X"}


def parse_stat(text: str) -> Stat | None:
    """``/proc/PID/stat``; None where it is of another form. The program's name may hold blanks and parentheses."""
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or not fields[19].isdigit():
        return None
    return Stat(fields[0], int(fields[19]))


def read_stat(host: Host, pid: int) -> Stat | None:
    """The process of that id; None where there is none."""
    return parse_stat(host.read(f"/proc/{pid}/stat") or "")


def read_boot_id(host: Host) -> str:
    """The name of the machine's present boot: ticks of another one say nothing. Empty where it has none."""
    return (host.read("/proc/sys/kernel/random/boot_id") or "").strip()


def link(path: Path) -> str:
    """Where a link of ``/proc`` leads, also where that was removed; empty where we may not look."""
    try:
        return str(path.readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def places(pid: int) -> tuple[str, ...]:
    """Where a process lives and prints: its working folder, standard output and standard error."""
    base = Path("/proc") / str(pid)
    return tuple(place for place in map(link, (base / "cwd", base / "fd" / "1", base / "fd" / "2")) if place)


def others() -> list[psutil.Process]:
    """Every process but this one and its parents."""
    me = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in me]


def names_folder(argv: Iterable[str], folder: Path) -> bool:
    """Whether a command line names the folder or something in it, as Ray's processes do with ``--temp-dir=...``."""
    name = re.compile(re.escape(str(folder)).join(EDGES))
    return any(name.search(word) for word in argv)


def users(folder: Path) -> list[psutil.Process]:
    """The processes, but this one and its parents, that name the folder, live in it or print into it."""
    paths = {folder.absolute(), folder.resolve()}
    return [process for process in others() if any(_uses(process, path) for path in paths)]


def _uses(process: psutil.Process, folder: Path) -> bool:
    try:
        argv = process.cmdline()
    except psutil.Error:
        argv = []
    inside = any(Path(place).is_relative_to(folder) for place in places(process.pid))
    return inside or names_folder(argv, folder)


def describe(process: psutil.Process) -> str:
    """The process in words: its program and its id."""
    try:
        return f"{process.name()} (pid {process.pid})"
    except psutil.NoSuchProcess:
        return f"a process that just ended (pid {process.pid})"
