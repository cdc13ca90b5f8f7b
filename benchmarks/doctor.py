"""How long the doctor takes: all checks on one node, and on 32 hosts over ssh.

    python -m benchmarks.doctor [--rounds 5] [--hosts 32] [--out benchmarks/results/doctor.json]

*One node* is the command as users type it, in a process of its own. *Hosts* are network namespaces of this machine with
a real sshd each, so it does the work of all of them: *cold* opens every connection, *warm* uses those that are kept.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.ssh_hosts import ssh_hosts

from shoal.checks.catalogue import EVERY
from shoal.checks.run import Choice
from shoal.host.base import Host
from shoal.ops.doctor import examine

BIN = Path(sys.executable).parent


def timed(what: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each round."""
    took = []
    for _ in range(rounds):
        began = time.monotonic()
        what()
        took.append(round(time.monotonic() - began, 3))
    return took


def one_node() -> None:
    """``shoal doctor --json`` on this machine."""
    done = subprocess.run([BIN / "shoal", "doctor", "--json"], capture_output=True, text=True, check=False, timeout=120)
    told = json.loads(done.stdout)
    if told["unreachable"] or not told["findings"]:
        raise RuntimeError(done.stderr)


def all_hosts(hosts: Sequence[Host]) -> None:
    """All hosts at once; every one must have been judged."""
    report = examine(hosts, (), Choice())
    if len(report.nodes) != len(hosts):
        raise RuntimeError(str(report.unreachable))


def measure(rounds: int, count: int) -> dict[str, Any]:
    """All figures, in seconds."""
    one_node()  # its first run compiles
    alone = timed(one_node, rounds)
    with ssh_hosts(count) as lab:
        hosts = lab.hosts(patience=30)
        cold = timed(lambda: all_hosts(hosts), 1)
        warm = timed(lambda: all_hosts(hosts), rounds)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "checks": len(EVERY),
        "one_node_s": {"median": statistics.median(alone), "rounds": alone},
        "hosts": count,
        "hosts_cold_s": cold[0],
        "hosts_warm_s": {"median": statistics.median(warm), "rounds": warm},
    }


def main(argv: Sequence[str]) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="benchmarks.doctor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=32)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    text = json.dumps(measure(options.rounds, options.hosts), indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
