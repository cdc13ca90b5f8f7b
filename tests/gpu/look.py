"""What can be seen from outside while something happens: GPU memory, the cluster's states, what is left behind."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from shoal.lab import cluster
from shoal.lab.cluster import Lab
from shoal.ops import sweep
from shoal.state.status import ClusterState, ClusterStatus

MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
FREE_MIB = 1500  # less than this is the driver's own, and no model's


def command(*argv: str, seconds: float = 20) -> str:
    """What a command prints; its error where it cannot be run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout + done.stderr


def gpu_memory() -> list[int]:
    """MiB in use on each GPU of the machine; nothing where there is none."""
    try:
        done = subprocess.run(MEMORY, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) for line in done.stdout.split() if line.isdigit()]


def words(status: ClusterStatus) -> dict[str, Any]:
    """A status, in what matters here."""
    engine = status.engine
    return {
        "state": status.state.value,
        "nodes": {node.name: node.state.value for node in status.nodes},
        "engine": engine.state.value if engine else "",
        "detail": engine.detail if engine else "",
        "node_detail": {node.name: node.detail for node in status.nodes if node.detail},
    }


class Watch:
    """Looks at the cluster and at GPU memory all the time, and remembers when what changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stop = threading.Event()
        self.states: list[tuple[float, dict[str, Any]]] = []
        self.memory: list[tuple[float, list[int]]] = []
        self._threads = [
            threading.Thread(target=self._loop, args=(self._look, 0.2), daemon=True),
            threading.Thread(target=self._loop, args=(self._measure, 0.3), daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _loop(self, work: Callable[[], None], pause: float) -> None:
        while not self._stop.wait(pause):
            work()

    def _look(self) -> None:
        now = words(cluster.status(self._lab))
        if not self.states or self.states[-1][1] != now:
            self.states.append((time.monotonic(), now))

    def _measure(self) -> None:
        began = time.monotonic()
        self.memory.append((began, gpu_memory()))

    def bad(self, since: float) -> float | None:
        """Seconds until somebody who looks was told."""
        seen = [at for at, state in list(self.states) if at > since and state["state"] != ClusterState.READY.value]
        return round(seen[0] - since, 1) if seen else None

    def free(self, since: float) -> float | None:
        """Seconds until all GPUs' memory was seen free; None where it never was, or there is no GPU."""
        for at, used in list(self.memory):
            if at > since and used and max(used) < FREE_MIB:
                return round(at - since, 1)
        return None

    def ready(self, since: float) -> float | None:
        """Seconds until the cluster was ready again after it had not been."""
        wrong = False
        for at, state in list(self.states):
            if at <= since:
                continue
            if state["state"] != ClusterState.READY.value:
                wrong = True
            elif wrong:
                return round(at - since, 1)
        return None

    def story(self, since: float) -> list[dict[str, Any]]:
        """All changes, by their seconds."""
        return [{"s": round(at - since, 1), **state} for at, state in self.states if at > since - 1]


def leftovers(lab: Lab) -> dict[str, Any]:
    """What a lab that is down has left: processes, folders, shared memory, namespaces, GPU memory."""
    run = lab.record.run
    time.sleep(1.0)
    names = [f"{one.pid} {' '.join(one.cmdline())[:120]}" for one in sweep.belonging(run.run_id, [Path(run.temp_dir)])]
    ray = [
        f"{one.pid} {one.name()}" for one in psutil.process_iter() if one.name() in {"raylet", "gcs_server"}
    ]  # fmt: skip
    spaces = sorted(path.name for path in Path("/var/run/netns").glob(f"shoal-{lab.record.tag}-*"))
    return {
        "processes": names,
        "ray": ray,
        "folder": Path(run.temp_dir).exists(),
        "namespaces": spaces,
        "shared_memory": sorted(path.name for path in Path("/dev/shm").glob("psm_*")),
        "gpu_memory_mib": gpu_memory(),
        "gpu_processes": command("nvidia-smi", "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader"),
    }
