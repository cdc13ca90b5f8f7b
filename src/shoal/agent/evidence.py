"""What a node can tell about a fault before anything is ended: stacks of its ranks, ends of logs, counters."""

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from shoal.agent.ranks import title
from shoal.errors import ShoalError
from shoal.host.base import Host

TAIL = 64 << 10
MOST_LOGS = 24
MOST_THREADS = 64
# One hanging process must not keep the whole engine down.
STACK_SECONDS = 4.0
COUNTERS = ("/sys/class/infiniband/*/ports/*/counters/*", "/sys/class/infiniband/*/ports/*/hw_counters/*")


def tail(path: Path, limit: int = TAIL) -> str:
    """The end of a file, from the beginning of a line; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError:
        return ""
    whole = data if size <= limit else data.partition(b"\n")[2]
    return whole.decode("utf-8", errors="replace")


def stack(host: Host, process: psutil.Process) -> str:
    """Where a process stands: by py-spy where it is installed and allowed, else what the kernel says of its threads."""
    if shutil.which("py-spy"):
        try:
            return host.run(("py-spy", "dump", "--nonblocking", "--pid", str(process.pid)), timeout=STACK_SECONDS).out
        except ShoalError as error:
            return f"py-spy: {error.why or error.what}\n{kernel_stack(host, process.pid)}"
    return kernel_stack(host, process.pid)


def kernel_stack(host: Host, pid: int) -> str:
    """Each thread of a process: name, state, where in the kernel it waits, and its kernel stack where we may look."""
    lines = []
    for thread in host.list(f"/proc/{pid}/task")[:MOST_THREADS]:
        base = f"/proc/{pid}/task/{thread}"
        state = re.search(r"^State:\s*(.+)$", host.read(f"{base}/status") or "", re.MULTILINE)
        name, waits = (host.read(f"{base}/{what}") or "" for what in ("comm", "wchan"))
        words = f"thread {thread} {name.strip()}: {state[1] if state else 'gone'}; waits in {waits.strip() or '?'}"
        lines += [words, *(f"    {line}" for line in (host.read(f"{base}/stack") or "").splitlines())]
    return "\n".join(lines)


def stacks(host: Host, processes: Iterable[psutil.Process]) -> str:
    """The stacks of several processes, each under its title; stops where it has taken too long for one node."""
    out, end = [], time.monotonic() + 3 * STACK_SECONDS
    for process in processes:
        if time.monotonic() > end:
            out.append("(no time for more)")
            break
        out.append(f"== pid {process.pid} {title(process)}\n{stack(host, process)}")
    return "\n\n".join(out) or "no process of the engine runs here"


def logs(own: Path, name: str, temp_dir: Path) -> dict[str, str]:
    """Ends of this node's logs: Ray's own output, its raylet and GCS, and the newest of its workers and of NCCL's."""
    session = temp_dir / "session_latest" / "logs"
    patterns = ("raylet*", "gcs_server*", "worker-*", "python-core-worker-*")
    files = sorted((path for pattern in patterns for path in session.glob(pattern)), key=_age)[:MOST_LOGS]
    nccl = sorted((own.parent / "nccl" / name).glob("*.log"), key=_age)[:MOST_LOGS]
    texts = {
        path.name: tail(path)
        for path in (*(own / f"{name}{kind}.log" for kind in (".ray", ".rank", "")), *nccl, *files)
    }
    return {name: text for name, text in texts.items() if text}


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def counters(root: Path = Path("/")) -> str:
    """The counters of every RDMA port, and the kernel's of every interface."""
    rows = [f"{path} {text}" for pattern in COUNTERS for path, text in _read(root, pattern)]
    return "\n".join([*rows, tail(root / "proc/net/dev")])


def _read(root: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(root.glob(pattern.lstrip("/"))):
        text = tail(path, 256).strip()
        if text:
            yield path, text
