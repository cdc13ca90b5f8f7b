"""A real cluster: real Ray, real vLLM on CPU, brought up by the command that users type."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
PORTS = ("--port", "18000", "--agent-port", "18700", "--port-base", "28000")
ENDPOINT = "http://127.0.0.1:18000"


def wait_for(what: Callable[[], Any], seconds: float, why: str) -> Any:
    """The first true value of ``what`` within ``seconds``; a failure that says ``why`` otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {why}")


@dataclass
class Chair:
    """An operator's chair: a state folder of its own, and the shoal command."""

    state: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "SHOAL_STATE_DIR": str(self.state), **self.extra}

    @property
    def folder(self) -> Path:
        return self.state / "local"

    def shoal(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "shoal"), *words], env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *words: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as out:
            return subprocess.Popen(
                [str(BIN / "shoal"), *words],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.shoal("status", "--json").stdout)
        return document

    def record(self) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        except FileNotFoundError:
            return None
        return document

    def key(self) -> str:
        return (self.folder / "api.key").read_text().strip()

    def pid_of(self, name: str) -> int:
        record = self.record()
        assert record is not None
        return next(int(proc["pid"]) for proc in record["procs"] if proc["name"] == name)

    def wait_state(self, state: str, seconds: float) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            now = self.status()
            return now if now["state"] == state else None

        found: dict[str, Any] = wait_for(reached, seconds, f"cluster state {state}")
        return found


@dataclass(frozen=True)
class Traces:
    """What a cluster could leave on a machine: listening ports, shared memory, temporary files, its processes."""

    ports: frozenset[tuple[str, int]]
    shm: frozenset[str]
    tmp: frozenset[str]
    pids: frozenset[int]

    def beyond(self, before: "Traces") -> dict[str, Any]:
        """What is there now and was not before."""
        return {
            "ports": sorted(self.ports - before.ports),
            "shm": sorted(self.shm - before.shm),
            "tmp": sorted(self.tmp - before.tmp),
            "processes": [_words(pid) for pid in sorted(self.pids - before.pids)],
        }


# What the command line of a cluster's process holds, whoever started it.
PROGRAMS = (
    "-m shoal ",
    "bin/shoal ",
    "ray::",
    "raylet",
    "gcs_server",
    "VLLM::",
    "vllm.entrypoints",
    "/ray/",
    "multiprocessing.resource_tracker",
    "multiprocessing.spawn",
)
SHELLS = {"sh", "bash", "dash", "zsh"}
FOREIGN = "/foreign-"  # in the folder's name of the Ray that stands for somebody else's (conftest.py)


def could_be_ours(argv: Sequence[str]) -> bool:
    """Whether a process of that command line could be a cluster's: no shell, no test run, none of the foreign Ray."""
    words = " ".join(argv) + " "
    # Only the program's name tells a test run: a cluster's own words may name a folder that pytest made.
    test_run = "pytest" in {Path(word).name for word in argv[:3]}
    if not argv or test_run or Path(argv[0]).name in SHELLS or FOREIGN in words:
        return False
    return any(program in words for program in PROGRAMS)


NOTHING: dict[str, Any] = {"ports": [], "shm": [], "tmp": [], "processes": []}


def _words(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:200]
    except psutil.NoSuchProcess:
        return f"{pid} (just ended)"


def traces(foreign: int) -> Traces:
    """The traces on this machine, without our own and the foreign Ray's, and without programs of no cluster."""
    family = {foreign, *(child.pid for child in psutil.Process(foreign).children(recursive=True))}
    family |= {psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))}
    listening = {
        (conn.laddr.ip, conn.laddr.port)
        for conn in psutil.net_connections("tcp")
        if conn.status == psutil.CONN_LISTEN and conn.pid not in family
    }
    running = {process.pid: process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])}
    pids = {pid for pid, argv in running.items() if pid not in family and could_be_ours(argv)}
    return Traces(frozenset(listening), _names("/dev/shm"), _names("/tmp"), frozenset(pids))


def _names(folder: str) -> frozenset[str]:
    names = (entry.name for entry in Path(folder).iterdir())
    return frozenset(name for name in names if not name.startswith(("pytest-", "foreign-")))
