"""A cluster of many ssh hosts with a real Ray each, and what it takes to find that nothing is to be changed there.

The hosts are network namespaces of this machine, each with a real sshd, agent and raylet; the engine is the simulated
one. They are brought up by one `shoal up`, whose agents are held back and let go some at a time: this machine's cores
do the work of all of them, and a raylet gives up when its own helpers take longer than half a minute to start. Whatever
takes the machine's last memory ends everything. Needs root.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.fleet.conftest import Operator
from tests.ssh_hosts import SshHosts, ssh_hosts

from shoal.host.ssh import SshHost
from shoal.lab.sim.answers import MODEL
from shoal.ops.fleet.planning import every, look
from shoal.plan.fleet import FleetPlan
from shoal.spec import cluster

SPARE = 3 << 30  # bytes of memory that are left to the machine
# Enough for a node that holds no model: no Ray worker is started before its time, and the store is as small as can be.
LEAN = {"SHOAL_NUM_CPUS": "0", "SHOAL_OBJECT_STORE_MB": "75"}
LEAN |= {"SHOAL_JOIN_TIMEOUT": "580", "SHOAL_LOST_AFTER": "120"}  # two cores for all of them
AT_ONCE = 4
CLUSTER = "many"


@dataclass
class Many:
    """The hosts of the lab, and their operator, who begins with the first of them."""

    machines: SshHosts
    chair: Operator

    @property
    def file(self) -> Path:
        """The cluster file."""
        return Path(self.chair.file)

    def write(self, count: int) -> None:
        """The cluster file with so many of the hosts."""
        names = list(self.machines.places)[:count]
        head = self.machines.places[names[0]][0]
        rows = []
        for name in names:
            env = dict(LEAN)
            if name == names[0]:
                env["SHOAL_ENGINE_PLAN"] = self.chair.engine_plan(f"engine-{count}.json", 8000, head, count)
            told = ", ".join(f"{key}: '{value}'" for key, value in env.items())
            rows.append(f"  - {{name: {name}, fabric: {self.machines.places[name][0]}, gpus: 1, env: {{{told}}}}}")
        text = [
            f"cluster: {CLUSTER}",
            "runtime: process",
            f"python: {sys.executable}",
            f"model: {MODEL}",
            "hosts:",
            *rows,
        ]
        self.file.write_text("\n".join(text) + "\n")

    def hosts(self) -> list[SshHost]:
        """Those of the file."""
        spec = cluster.load(self.file)
        known = {host.name: host for host in self.machines.hosts()}
        return [known[host.name] for host in spec.hosts]

    def programs(self) -> dict[str, tuple[int, int]]:
        """What runs: by host and unit its process id and start time."""
        hosts = self.hosts()
        standings = every(hosts, look(cluster.load(self.file), hosts))
        return {
            f"{name} {unit}": (one.pid, one.ticks)
            for name, standing in standings.items()
            for unit, one in standing.units.items()
            if one.runs
        }

    def bring_up(self) -> float:
        """Seconds of `shoal up`; but so many agents at once start their Ray, the others are stopped until then."""
        began, log = time.monotonic(), self.file.with_name("up.log")
        with log.open("w") as out:
            argv = [sys.executable, "-m", "shoal", "up", "--timeout", "580"]
            up = subprocess.Popen(
                argv, env=self.chair.env(), cwd=self.file.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
            held: dict[int, psutil.Process] = {}
            free: dict[int, psutil.Process] = {}
            while up.poll() is None:
                for agent in agents():
                    if agent.pid not in held and agent.pid not in free:
                        agent.suspend()
                        held[agent.pid] = agent
                starting = [agent for agent in free.values() if not joined(agent)]
                for agent in sorted(held.values(), key=is_worker)[: max(0, AT_ONCE - len(starting))]:
                    free[agent.pid] = held.pop(agent.pid)
                    agent.resume()
                time.sleep(0.3)
        if up.returncode:
            raise RuntimeError(log.read_text()[-3000:])
        return round(time.monotonic() - began, 1)

    def forget_connections(self) -> None:
        """The next command opens every connection anew."""
        for path in self.machines.config.parent.iterdir():
            if path.is_socket():
                path.unlink()


def agents() -> list[psutil.Process]:
    """The agents of this cluster."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if words[-1:] == ["agent"] and f"/{CLUSTER}/releases/" in words[1]:
                found.append(process)
    return found


def is_worker(agent: psutil.Process) -> bool:
    """Whether it waits for the head."""
    return bool(agent.environ()["RAY_MODE"] == "worker")


def joined(agent: psutil.Process) -> bool:
    """Whether its Ray is in the cluster; one that has ended holds no other up."""
    try:
        address = agent.environ()["VLLM_HOST_IP"]
        with urllib.request.urlopen(f"http://{address}:8700/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except psutil.Error:
        return True
    except OSError:
        return False


@contextmanager
def many(count: int, subnet: str, folder: Path) -> Iterator[Many]:
    """So many hosts, on which nothing runs yet. At the end nothing of them is left."""
    plan = folder / "me" / "clusters" / CLUSTER / "plan.json"
    try:
        with ssh_hosts(count, subnet=subnet) as lab, guarded():
            yield Many(lab, Operator(lab, folder))
    finally:
        # Their homes went with them; the folders for sockets and sessions are this machine's.
        for node in FleetPlan.model_validate_json(plan.read_text()).nodes if plan.is_file() else ():
            shutil.rmtree(node.temp, ignore_errors=True)


@contextmanager
def guarded() -> Iterator[None]:
    """Interrupt everything when the machine's memory comes to its end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if psutil.virtual_memory().available < SPARE:
                sys.stderr.write(f"less than {SPARE >> 30} GiB of memory are left: all ends\n")
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def footprint(lab: SshHosts, count: int, seconds: float = 10.0) -> dict[str, Any]:
    """What a host's processes hold of memory (a shared page counts in parts) and use of a core at rest, by name."""
    names = list(lab.places)[:count]
    pids = {pid for name in names for pid in in_namespace(lab.places[name][1])}
    held: dict[str, int] = defaultdict(int)
    before = {pid: used for pid in pids if (used := cpu(pid)) is not None}
    time.sleep(seconds)
    at_rest: dict[str, float] = defaultdict(float)
    for pid, began in before.items():
        if (now := cpu(pid)) is None:
            continue
        held[now[0]] += pss(pid)
        at_rest[now[0]] += now[1] - began[1]
    return {
        "hosts": count,
        "mib_per_host": round(sum(held.values()) / 1024 / count),
        "cpu_percent_per_host": round(sum(at_rest.values()) / seconds / count * 100, 1),
        "mib_by_program": {name: round(kib / 1024 / count, 1) for name, kib in most(held)},
        "cpu_percent_by_program": {name: round(used / seconds / count * 100, 2) for name, used in most(at_rest)},
        "available_gib": round(psutil.virtual_memory().available / 2**30, 1),
    }


def most(found: Mapping[str, float]) -> list[tuple[str, float]]:
    """The largest first."""
    return sorted(found.items(), key=lambda item: -item[1])[:10]


def in_namespace(namespace: str) -> list[int]:
    """Processes in a network namespace."""
    argv = ["ip", "netns", "pids", namespace]
    return list(map(int, subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()))


def cpu(pid: int) -> tuple[str, float] | None:
    """What a process is, and its processor seconds."""
    try:
        process = psutil.Process(pid)
        words, times = process.cmdline(), process.cpu_times()
    except psutil.Error:
        return None
    return kind(words or [process.name()]), times.user + times.system


def kind(words: Sequence[str]) -> str:
    """The program in a command line: of a Python's its module or script."""
    line = " ".join(words)
    known = ("runtime_env", "dashboard/agent", "dashboard/dashboard", "log_monitor", "raylet", "gcs_server", "ray::",
             "shoal.pyz agent", "shoal.pyz serve", "scripts start", "sim", "sshd")  # fmt: skip
    return next((name for name in known if name in line), Path(words[0]).name)


def pss(pid: int) -> int:
    """KiB."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(next((line.split()[1] for line in text.splitlines() if line.startswith("Pss:")), 0))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 2)


def turns(work: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Seconds of several runs."""
    took = [timed(work) for _ in range(rounds)]
    return {"median_s": statistics.median(took), "seconds": took}


def floor(made: Many) -> None:
    """What a shell loop takes that starts `true` on every host at once: nothing can be asked of all for less."""
    names = " ".join(host.name for host in made.hosts())
    loop = f'for host in {names}; do {made.chair.folder}/bin/ssh "$host" true & done; wait'
    subprocess.run(["bash", "-c", loop], check=True, stdin=subprocess.DEVNULL, timeout=120)


def nothing_to_do(made: Many, rounds: int) -> dict[str, Any]:
    """`up`, `plan --diff` and `status` where all is as planned, beside the floor; nothing may start again."""
    before = made.programs()
    if len(before) != len(made.hosts()) + 1:
        raise RuntimeError(f"it does not all run: {before}")

    def up() -> None:
        if "nothing to change" not in made.chair.shoal("up").stdout:
            raise RuntimeError("up has changed something")

    def plan() -> None:
        if "nothing to change" not in made.chair.shoal("plan", "--diff").stdout:
            raise RuntimeError("plan sees a difference")

    def status() -> None:
        made.chair.shoal("status", "-f", "shoal.yaml")

    found: dict[str, Any] = {"hosts": len(made.hosts()), "load": round(os.getloadavg()[0], 1)}
    for name, work in {"ssh_true": lambda: floor(made), "up": up}.items():
        made.forget_connections()
        found[f"{name}_cold_s"] = timed(work)
    for name, work in {"ssh_true": lambda: floor(made), "up": up, "plan_diff": plan, "status": status}.items():
        found[name] = turns(work, rounds)
    if made.programs() != before:
        raise RuntimeError("something was started again")
    return found


def measure(hosts: int, rounds: int, subnet: str = "192.168.152") -> dict[str, Any]:
    """The figures of one host, and of all."""
    with tempfile.TemporaryDirectory() as name, many(hosts, subnet, Path(name)) as made:
        rows, took = [], {}
        for size in (1, hosts):
            made.write(size)
            took[str(size)] = made.bring_up()
            sys.stderr.write(f"{size} host(s): up after {took[str(size)]} s\n")
            time.sleep(10)  # until the start is digested
            rows.append(nothing_to_do(made, rounds))
            sys.stderr.write(f"{rows[-1]}\n")
        return {"nothing_to_do": rows, "brought_up_s": took, "footprint": footprint(made.machines, hosts)}
