"""The fabric bench's driver: one task for each GPU, or for each node without GPUs, on a running Ray cluster.

    python -m shoal.bench.driver ADDRESS SPEC

A program of its own, because it imports ray. It prints one JSON document a line: ``look`` (what is on the nodes),
``refused``, then the rows of ``worker.py`` as they come, and ``done``. The token comes from the environment.
Exit codes: 0 done, 3 refused, 4 no cluster.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray
from shoal.facts.ray_child import GcsError, require_ready

EXIT_DONE, EXIT_REFUSED, EXIT_NO_CLUSTER = 0, 3, 4
START_SECONDS = 90
CONNECT_SECONDS = 5.0


def look(address: str) -> dict[str, Any]:
    """What a node has: torch, CUDA, the interface of its address, a free port, active HCAs, rates in Gb/s."""
    import ipaddress
    import socket
    from pathlib import Path

    import psutil
    import torch

    def holds(ip: str, mask: str | None) -> bool:
        if ":" in ip or not mask:
            return False
        network = ipaddress.ip_network(f"{ip}/{mask}", strict=False)
        return ip == address or (network.is_loopback and ipaddress.ip_address(address) in network)

    interfaces = [
        name for name, rows in psutil.net_if_addrs().items() if any(holds(row.address, row.netmask) for row in rows)
    ]
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]

    def number(path: Path) -> float:
        try:
            return float(path.read_text().split()[0])
        except (OSError, ValueError, IndexError):  # a link that is down has no speed
            return 0.0

    folder = Path("/sys/class/infiniband")
    hcas = sorted(folder.iterdir()) if folder.is_dir() else []
    active = [hca for hca in hcas if (hca / "ports/1/state").read_text().startswith("4")]
    speed = number(Path("/sys/class/net") / (interfaces[0] if interfaces else "none") / "speed")
    # The driver's own files: to ask CUDA would open a context, which takes memory.
    told = [path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information")]
    models = [line.partition(":")[2].strip() for text in told for line in text.splitlines() if line.startswith("Model")]
    return {
        "torch": torch.__version__,
        "gpu": models[0] if models else "",
        "cuda": torch.cuda.is_available(),
        "interface": interfaces[0] if interfaces else "",
        "port": port,
        "hcas": [hca.name for hca in active],
        "rdma_gbps": sum(number(hca / "ports/1/rate") for hca in active),
        "interface_gbps": max(speed, 0.0) / 1000,
    }


def rank_task(source: str, spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run ``worker.py``, whose text is ``source``, as one rank."""
    import os

    # A rank's own interface: Gloo would take what the host's name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", spec["interface"])
    module: dict[str, Any] = {"__name__": "shoal_bench_worker"}
    exec(compile(source, "worker.py", "exec"), module)  # noqa: S102 (our own module; the nodes need not have shoal)
    yield from module["run"](spec)


def say(document: dict[str, Any]) -> None:
    """One line of output."""
    print(json.dumps(document), flush=True)


def nodes() -> list[dict[str, Any]]:
    """The nodes that are alive, the head first."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return sorted(
        alive, key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeManagerAddress"])
    )


def holder(wanted: float) -> str:
    """Who holds GPUs that the bench needs; empty where all are free."""
    free = ray.available_resources().get("GPU", 0.0)
    if free >= wanted:
        return ""
    groups = [key for key, group in placement_group_table().items() if group["state"] in {"CREATED", "PENDING"}]
    who = f"an engine (placement group {groups[0]})" if groups else "another task"
    return f"{who} holds {wanted - free:g} of {wanted:g} GPUs"


def place(found: list[dict[str, Any]], looks: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Node and look of each rank: one for each GPU where all nodes have CUDA, else one for each node."""
    if not all(item["cuda"] for item in looks):
        return list(zip(found, looks, strict=True))
    return [
        (node, item)
        for node, item in zip(found, looks, strict=True)
        for _ in range(int(node["Resources"].get("GPU", 0)))
    ]


def start(ranks: list[tuple[dict[str, Any], dict[str, Any]]], spec: dict[str, Any], backend: str) -> list[Any]:
    """Start one task for each rank; their generators."""
    source = files("shoal.bench").joinpath("worker.py").read_text(encoding="utf-8")
    first, told = ranks[0]
    common = spec | {
        "world": len(ranks),
        "backend": backend,
        "master": f"{first['NodeManagerAddress']}:{told['port']}",
    }
    task = ray.remote(num_cpus=0, max_retries=0)(rank_task)
    return [
        task.options(
            num_gpus=1 if backend == "nccl" else 0,
            num_returns="streaming",
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(source, common | {"rank": rank, "interface": item["interface"]})
        for rank, (node, item) in enumerate(ranks)
    ]


def bench(spec: dict[str, Any]) -> int:
    """Look, place, run; the exit code."""
    found = nodes()
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            node["NodeManagerAddress"]
        )
        for node in found
    ]
    looks = ray.get(asked, timeout=START_SECONDS)
    ranks = place(found, looks)
    backend = "nccl" if all(item["cuda"] for item in looks) else "gloo"
    said = [{"address": node["NodeManagerAddress"], **item} for node, item in ranks]
    say({"kind": "look", "backend": backend, "ranks": said})
    if len(ranks) < 2:
        say({"kind": "refused", "why": f"{len(ranks)} rank: a transfer needs two"})
        return EXIT_REFUSED
    if backend == "nccl" and (why := holder(float(len(ranks)))):
        say({"kind": "refused", "why": why})
        return EXIT_REFUSED
    streams = start(ranks, spec, backend)
    for reference in streams[0]:
        say(ray.get(reference))
    for stream in streams[1:]:
        for _ in stream:  # nothing comes from it but its error
            continue
    say({"kind": "done"})
    return EXIT_DONE


def main(argv: Sequence[str]) -> int:
    """Connect and run; the exit code."""
    spec = json.loads(argv[1])
    try:
        # Ray itself would go on asking an address where nobody answers for minutes.
        require_ready(argv[0], os.environ, CONNECT_SECONDS)
        ray.init(address=argv[0], log_to_driver=False, logging_level="ERROR")
    except (GcsError, ConnectionError, RuntimeError, ValueError) as error:
        say({"kind": "refused", "why": str(error).splitlines()[0]})
        return EXIT_NO_CLUSTER
    try:
        return bench(spec)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        say({"kind": "failed", "why": lines[-1][:400] if lines else type(error).__name__})
        return 1
    finally:
        ray.shutdown()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
