"""`shoal bench fabric` against a bare torch loop, in turns, over each transport that two GPUs of one machine have.

    python -m benchmarks.fabric [--rounds 3] [--out benchmarks/results/fabric-gpu.json]

For a machine with two NVIDIA GPUs or more, Ray and torch. NCCL is made to use P2P (NVLink or PCIe), then shared memory,
then sockets, by its own variables. What is compared is all_reduce's busbw at each size; the bound for the ratio is 0.97
at the largest.
"""

import argparse
import json
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from shoal.bench.measure import bus_bandwidth, sizes
from shoal.spec.environ import environ

TRANSPORTS: dict[str, dict[str, str]] = {
    "p2p": {},
    "shm": {"NCCL_P2P_DISABLE": "1"},
    "socket": {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"},
}
LARGEST = 1 << 30
RANKS = 2
PORT = 31000
GCS = f"127.0.0.1:{PORT}"


class Node:
    """A Ray head on loopback with two GPUs, asking for a token, and with a transport's variables in its environment."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sb"))
        token = self._folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = {
            **environ(),
            **variables,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def __enter__(self) -> Self:
        argv = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--port={PORT}", f"--num-gpus={RANKS}", "--include-dashboard=false",
            "--no-monitor", "--object-store-memory=200000000", f"--temp-dir={self._folder / 'ray'}",
        ]  # fmt: skip
        self._log = (self._folder / "ray.log").open("wb")
        self._ray = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        end = time.monotonic() + 90
        while "--block" not in (said := (self._folder / "ray.log").read_text()):
            if time.monotonic() > end or self._ray.poll() is not None:
                raise RuntimeError("Ray did not come up:\n" + said[-3000:])
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.send_signal(signal.SIGTERM)
        try:
            self._ray.wait(60)
        except subprocess.TimeoutExpired:
            self._ray.kill()
            self._ray.wait(10)
        self._log.close()


def through_shoal(node: Node) -> dict[int, float]:
    """Size -> busbw in GB/s of all_reduce, by the verb."""
    words = ["bench", "fabric", "--address", GCS, "--max-size", "1G", "--only", "all_reduce", "--no-pairs", "--json"]
    argv = [sys.executable, "-m", "shoal", *words]
    done = subprocess.run(argv, env=node.env, capture_output=True, text=True, timeout=300, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"shoal {' '.join(words)} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return {row["size"]: row["busbw"] for row in json.loads(done.stdout)["rows"]}


def bare(variables: dict[str, str]) -> dict[int, float]:
    """The same by the bare loop."""
    file = Path(__file__).with_name("bare_loop.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS)]
    argv = [*launch, str(file), *map(str, sizes(LARGEST))]
    done = subprocess.run(argv, env=environ() | variables, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"the bare loop ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {int(size): bus_bandwidth("all_reduce", int(size), seconds, RANKS) for size, seconds in found.items()}


def compare(rounds: int, variables: dict[str, str]) -> list[dict[str, float]]:
    """Rows of one transport: medians of both over the rounds, taken in turns, and their ratio."""
    ours: list[dict[int, float]] = []
    theirs: list[dict[int, float]] = []
    with Node(variables) as node:
        for _ in range(rounds):
            ours.append(through_shoal(node))
            theirs.append(bare(variables))
    rows = []
    for size in sizes(LARGEST):
        mine, other = (statistics.median(one[size] for one in many) for many in (ours, theirs))
        rows.append({"size": size, "shoal": round(mine, 3), "bare": round(other, 3), "ratio": round(mine / other, 3)})
    return rows


def machine() -> dict[str, Any]:
    """What it was measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    cards = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    versions = "[torch.__version__, list(torch.cuda.nccl.version()), ray.__version__]"
    code = f"import json, torch, ray; print(json.dumps({versions}))"
    argv = [sys.executable, "-c", code]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return {"gpus": cards, "torch": found[0], "nccl": ".".join(map(str, found[1])), "ray": found[2]}


def main() -> None:
    """Measure each transport, print and keep the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine(),
        "rounds": args.rounds,
        "unit": "GB/s busbw, all_reduce",
        "transports": {},
    }
    for name, variables in TRANSPORTS.items():
        rows = result["transports"][name] = compare(args.rounds, variables)
        for row in rows:
            print(
                f"{name:7s} {row['size']:>11d}  shoal {row['shoal']:9.3f}  bare {row['bare']:9.3f}  {row['ratio']:.3f}",
                flush=True,
            )
        if args.out:
            args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
