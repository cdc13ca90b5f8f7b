"""How long many nodes take: the status of 1,000 simulated ones, and `up` on 32 hosts where nothing is to be changed.

    python -m benchmarks.fleet [--nodes 1000] [--hosts 32] [--rounds 10] [--out benchmarks/results/fleet.json]

The nodes are simulated: one other process answers in place of their agents, each at a loopback address
of its own. What is measured is what ``shoal status`` does on the head of such a cluster: ask every agent and the
supervisor, check each answer, and judge the whole. Both processes share this machine's cores.

The hosts are network namespaces of this machine, with a real sshd, agent and Ray each, and a simulated engine over all
of them. They are brought up once; then ``shoal up`` finds that nothing is to be changed, and starts nothing. Beside it
stand ``shoal plan --diff``, ``shoal status``, and a shell loop that starts ``true`` on every host at once, by ssh too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import fleet_hosts
from benchmarks.simulated_agents import address
from shoal.ops.snapshot import snapshot
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import NodeState

PORT = 8790


@contextmanager
def simulated(count: int) -> Iterator[RunRecord]:
    """The record of a cluster whose agents are simulated by another process, while that runs."""
    argv = [sys.executable, "-m", "benchmarks.simulated_agents", str(count), str(PORT)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as agents:
        try:
            if agents.stdout is None or agents.stdout.readline() != "ready\n":
                raise RuntimeError("the simulated agents do not listen")
            yield record(count)
        finally:
            agents.kill()


def record(count: int) -> RunRecord:
    """Such a cluster as ``shoal status`` knows it."""
    nodes = (
        NodeRecord(
            name=f"node-{number}",
            role="worker" if number else "head",
            address=address(number),
            gpus=8,
            agent_url=f"http://{address(number)}:{PORT}",
        )
        for number in range(count)
    )
    return RunRecord(
        run_id="simulated",
        boot_id="",
        cluster="simulated",
        created=0.0,
        model="none",
        endpoint=f"http://{address(0)}:8000/v1",
        serve_url=f"http://{address(0)}:{PORT}",
        temp_dir="",
        log_dir="",
        api_key_file="/nonexistent/api.key",
        nodes=tuple(nodes),
    )


def gathered(run: RunRecord, rounds: int) -> list[dict[str, float]]:
    """Seconds and processor seconds of each round; every node must have answered."""
    took = []
    for _ in range(rounds):
        began, used = time.monotonic(), time.process_time()
        status = snapshot(run)
        took.append({"s": round(time.monotonic() - began, 3), "cpu_s": round(time.process_time() - used, 3)})
        if lost := [node.detail for node in status.nodes if node.state is not NodeState.UP]:
            raise RuntimeError(f"{len(lost)} of {len(status.nodes)} nodes: {lost[0]}")
    return took


def measure(count: int, hosts: int, rounds: int) -> dict[str, Any]:
    """All figures, in seconds."""
    with simulated(count) as run:
        took = gathered(run, rounds)
    walls, load = [one["s"] for one in took], os.getloadavg()[0]
    over_ssh = {"hosts": fleet_hosts.measure(hosts, 3)} if hosts else {}
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "status": {
            "nodes": count,
            "simulated": True,
            "median_s": statistics.median(walls),
            "slowest_s": max(walls),
            "median_cpu_s": statistics.median(one["cpu_s"] for one in took),
            "rounds_s": walls,
            "load": load,
        },
        **over_ssh,
    }


def main(argv: Sequence[str]) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=32, help="0: none")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    text = json.dumps(measure(options.nodes, options.hosts, options.rounds), indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
