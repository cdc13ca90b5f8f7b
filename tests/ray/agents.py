"""Real agents with real Rays on loopback addresses, for the tests of this folder."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.agent.key import derive
from shoal.state.journal import Entry, journal_file, read

AGENT_PORT, PORTS = 18720, 29500
T = Any


def until(true: Callable[[], T], seconds: float, what: str) -> T:
    """The first true answer, or a failure that names what was waited for."""
    end = time.monotonic() + seconds
    while True:
        if found := true():
            return found
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


@dataclass
class Agent:
    """One agent as a process of ours, and what it tells."""

    name: str
    address: str
    env: dict[str, str]
    state: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with (self.state / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shoal", "agent"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, path: str, body: bytes | None = None, token: str = "") -> Any:
        request = urllib.request.Request(f"http://{self.address}:{AGENT_PORT}{path}", data=body)
        request.add_header("Authorization", f"Bearer {derive(token or self.token)}")
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.loads(reply.read())

    @property
    def token(self) -> str:
        return Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text().strip()

    def status(self) -> dict[str, Any]:
        try:
            return dict(self.ask("/status"))
        except OSError:
            return {"state": "silent", "ray_node_id": None}

    def up(self, other_than: str | None = None, seconds: float = 90.0) -> dict[str, Any]:
        """The status once the node is up, by another raylet than that one."""

        def there() -> dict[str, Any] | None:
            now = self.status()
            return now if now["state"] == "up" and now["ray_node_id"] != other_than else None

        return dict(until(there, seconds, f"{self.name} is up; log:\n{self.said()}"))

    def said(self) -> str:
        return (self.state / f"{self.name}.log").read_text()[-4000:]

    def events(self) -> list[Entry]:
        return read(journal_file(self.state, self.name))

    def family(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def one(self, name: str) -> psutil.Process:
        """A process below the agent by its name."""
        return next(process for process in self.family() if process.name() == name)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        if number is signal.SIGKILL:
            self.process.wait(10)


@dataclass
class Pair:
    """A head and a worker."""

    head: Agent
    worker: Agent
    extra: list["subprocess.Popen[bytes]"] = field(default_factory=list)


@contextmanager
def pair(**more: str) -> Iterator[Pair]:
    """A head and a worker whose agents run; all of it is ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-test-", dir="/tmp"))
    token = folder / "ray.token"
    token.write_text(secrets.token_hex(32))
    agents = [agent(folder, token, at, more) for at in (1, 2)]
    both = Pair(*agents)
    try:
        for one in agents:
            one.start()
        yield both
    finally:
        for one in reversed(agents):
            stop(one)
        shutil.rmtree(folder, ignore_errors=True)


def agent(folder: Path, token: Path, at: int, more: dict[str, str]) -> Agent:
    name, state = ("head", folder / "head") if at == 1 else ("worker", folder / "worker")
    state.mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RAY_MODE": name,
        "VLLM_HOST_IP": f"127.0.0.{at}",
        "RAY_ADDRESS": f"127.0.0.1:{PORTS}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "SHOAL_NODE_NAME": name,
        "SHOAL_AGENT_PORT": str(AGENT_PORT),
        "SHOAL_PORT_BASE": str(PORTS + 100 * (at - 1)),
        "SHOAL_NUM_GPUS": "1",
        "SHOAL_NUM_CPUS": "1",
        "SHOAL_OBJECT_STORE_MB": "100",
        "SHOAL_RAY_TEMP_DIR": str(folder / str(at)),
        "SHOAL_STATE_DIR": str(state),
        "SHOAL_LOST_AFTER": "6",
        "SHOAL_RUN_ID": "test",
    }
    return Agent(name, f"127.0.0.{at}", env | more, state)


def stop(one: Agent) -> None:
    if one.process is None or one.process.poll() is not None:
        return
    family = one.family()
    one.send(signal.SIGCONT)
    one.send(signal.SIGTERM)
    try:
        one.process.wait(30)
    except subprocess.TimeoutExpired:
        one.send(signal.SIGKILL)
    for process in family:
        if process.is_running():
            process.kill()
