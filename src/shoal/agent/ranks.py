"""Which processes of this node are the engine's: the actors below our own raylet, by Ray's and vLLM's titles.

Nothing that is not a descendant of the ``ray start`` which this agent started is ever looked at, so no foreign Ray is
touched. Ray's own agents and workers without work stay: a raylet ends when one of its agents does.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.agent.supervise import descendants, end_all
from shoal.errors import ShoalError
from shoal.facts.gpu import GpuProcess, chosen
from shoal.facts.process import link
from shoal.host.base import Host

# vLLM's processes, and its actors by class: RayWorkerProc, RayWorkerWrapper, SimulatedWorker.
TITLE = re.compile(r"^(VLLM::|SIMULATED::|ray::\w*Worker)")
SHM = Path("/dev/shm")  # noqa: S108 (the kernel's folder; only what our own ranks had open is removed from it)
SHM_NAMES = re.compile(r"^(psm_|sem\.(mp|loky)-|\S*-cpushm_)")
COMPUTE_APPS = (
    "nvidia-smi",
    "--query-compute-apps=pid,process_name,used_gpu_memory",
    "--format=csv,noheader,nounits",
)
# Less than this is a monitor or a display, and no model.
HELD_MIB = 256
FREED_WITHIN = 10.0


@dataclass(frozen=True)
class Segment:
    """A shared memory file that a rank had open; the inode tells it from a later one of that name."""

    path: Path
    inode: int


def title(process: psutil.Process) -> str:
    """What the process calls itself; empty where it has ended."""
    try:
        return " ".join(process.cmdline()).strip("\0 ")
    except psutil.Error:
        return ""


def engine_processes(ray_pid: int | None) -> list[psutil.Process]:
    """The ranks below that ``ray start``, each with what it started itself."""
    if ray_pid is None:
        return []
    out: dict[int, psutil.Process] = {}
    for process in descendants(ray_pid):
        if TITLE.match(title(process)):
            out |= {one.pid: one for one in (process, *descendants(process.pid))}
    return list(out.values())


def segments(pids: Iterable[int], folder: Path = SHM) -> set[Segment]:
    """The shared memory of vLLM's that these processes have mapped or open."""
    prefix = f"{folder}/"
    names: set[str] = set()
    for pid in pids:
        base = Path("/proc") / str(pid)
        try:
            maps = (base / "maps").read_text(errors="replace").splitlines()
            names |= {line[line.index(prefix) :] for line in maps if prefix in line}
            names |= {place for fd in (base / "fd").iterdir() if (place := link(fd)).startswith(prefix)}
        except OSError:
            continue
    found = set()
    for name in names:
        path = Path(name)
        try:
            if path.parent == folder and SHM_NAMES.match(path.name):
                found.add(Segment(path, path.stat().st_ino))
        except OSError:
            continue
    return found


def remove(found: Iterable[Segment], used: set[Segment]) -> list[str]:
    """Remove segments that nobody of ours uses any more; returns their names."""
    removed = []
    for segment in sorted(set(found) - used, key=lambda one: one.path):
        try:
            if segment.path.stat().st_ino == segment.inode:
                segment.path.unlink()
                removed.append(segment.path.name)
        except OSError:
            continue
    return removed


def parse_apps(text: str) -> tuple[GpuProcess, ...]:
    """Processes that hold GPU memory, out of the CSV of :data:`COMPUTE_APPS`."""
    out = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].isdigit():
            out.append(GpuProcess(int(parts[0]), parts[1], int(parts[2]) if parts[2].isdigit() else None))
    return tuple(out)


def holders(host: Host, visible: str = "") -> tuple[GpuProcess, ...]:
    """Who holds the ``visible`` GPUs of this node, a monitor's few MiB aside; nobody where no driver says so."""
    try:
        result = host.run((*COMPUTE_APPS, *chosen(visible)), timeout=10, ok=range(256))
    except ShoalError:
        return ()
    apps = parse_apps(result.out) if result.code == 0 else ()
    return tuple(app for app in apps if app.used_mib is None or app.used_mib >= HELD_MIB)


async def wait_until_free(host: Host, ours: Sequence[int], visible: str = "") -> tuple[GpuProcess, ...]:
    """Who still holds GPUs once our ranks' memory is back, or the wait is over: a driver frees it after the exit."""
    held: tuple[GpuProcess, ...] = ()
    for _ in range(int(FREED_WITHIN / 0.5)):
        held = await asyncio.to_thread(holders, host, visible)
        if not any(app.pid in ours for app in held):
            break
        await asyncio.sleep(0.5)
    return held


async def end_ranks(found: Sequence[psutil.Process]) -> list[psutil.Process]:
    """End these processes of the engine; returns those that are still there."""
    # Stopped ones take no TERM, and a rank has nothing to save.
    return await end_all(found, grace=0.2)
