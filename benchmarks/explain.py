"""`shoal explain` on long logs: seconds, and memory that does not grow with them.

    python -m benchmarks.explain [--rounds 3] [--out benchmarks/results/explain.json]

The logs are made of real ones: NCCL's of two GPUs over four transports, and vLLM's of a start; and of channel lines as
a Ray driver prints them. Each is repeated to 10, 100 and 400 MB and given to the command, as a program of its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
NCCL = ROOT / "tests/machines/h200x2/logs"
VLLM = ROOT / "tests/unit/data/vllm-0.32-start.log"
SIZES = (10, 100, 400)  # MB


def channels() -> bytes:
    """What eight ranks say of their channels, as a Ray driver prints it."""
    head = "(RayWorkerProc pid={0}, ip=10.0.0.2) node2:{0}:{0} [0] NCCL INFO "
    lines = (
        f"{head.format(4700 + rank)}Channel {channel:02d}/0 : 1[0] -> 0[0] [receive] via NET/IB/0/GDRDMA\n"
        for rank in range(8)
        for channel in range(16)
    )
    return "".join(lines).encode()


def kinds() -> dict[str, bytes]:
    """What is repeated, by name."""
    cases = ("p2p", "shm", "socket", "badhca")
    nccl = b"".join((NCCL / f"nccl-{case}-rank{rank}.txt").read_bytes() for case in cases for rank in (0, 1))
    return {"nccl": nccl, "channels": channels(), "vllm": VLLM.read_bytes()}


def write(path: Path, unit: bytes, size: int) -> int:
    """A file of at least ``size`` bytes; its length."""
    piece = unit * max(1, 1_000_000 // len(unit))
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(piece)
        return file.tell()


def run(path: Path) -> dict[str, float]:
    """One call of the command: wall and processor seconds, and its greatest resident size."""
    argv = [sys.executable, "-m", "shoal", "explain", "--json", str(path)]
    began = time.monotonic()
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    if os.waitstatus_to_exitcode(status) not in {0, 1}:
        raise RuntimeError(f"{argv} ended with status {status}")
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_mb": usage.ru_maxrss / 1000}


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Medians, by kind of log and by size."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, unit in kinds().items():
            results[name] = {}
            for size in SIZES:
                path = Path(folder) / f"{name}.log"
                length = write(path, unit, size * 1_000_000)
                runs = [run(path) for _ in range(rounds)]
                medians = {key: round(statistics.median(one[key] for one in runs), 2) for key in runs[0]}
                results[name][f"{size} MB"] = {"bytes": length} | medians
                print(name, f"{size} MB", medians, flush=True)
                path.unlink()
    return results


def main(argv: Sequence[str]) -> int:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(prog="benchmarks.explain", description="Time shoal explain on long logs.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/explain.json")
    args = parser.parse_args(argv)
    document = {
        "command": f"python -m benchmarks.explain --rounds {args.rounds}",
        "machine": {"cores": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1)},
        "kernel": platform.release(),
        "python": platform.python_version(),
        "median": measure(args.rounds),
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
