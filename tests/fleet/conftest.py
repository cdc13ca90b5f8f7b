"""Four hosts of one operator: real sshd each, a real Ray between them, the simulated engine on the first."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.subnets import free_subnet

from shoal.engine.launch import Request
from shoal.host.ssh import SshHost
from shoal.lab.plan import SIM_SERVER
from shoal.lab.sim.answers import MODEL
from shoal.plan.engine import arguments
from shoal.plan.parallel import Parallel

SUBNET = free_subnet(140)
HEAD = f"{SUBNET}.1"
CLUSTER = "lab"
ROOT = f"{Path.home()}/.local/share/shoal/{CLUSTER}"
# The user's own ssh, which reads the tests' config in place of his.
SSH = """\
#!/bin/sh
exec /usr/bin/ssh -F {config} -o ControlPath={folder}/%C "$@"
"""


@dataclass
class Operator:
    """Somebody with a cluster file, an ssh config and a state folder of his own."""

    machines: SshHosts
    folder: Path

    def __post_init__(self) -> None:
        tools = self.folder / "bin"
        tools.mkdir()
        ssh = tools / "ssh"
        ssh.write_text(SSH.format(config=self.machines.config, folder=self.machines.config.parent))
        ssh.chmod(0o755)

    @property
    def file(self) -> Path:
        """The cluster file."""
        return self.folder / "shoal.yaml"

    def env(self, operator: str = "me") -> dict[str, str]:
        """The environment of an operator, who has a state folder of his own."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "SHOAL_STATE_DIR": str(self.folder / operator)}

    def shoal(self, *words: str, operator: str = "me", code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """What an operator types; its exit code is looked at unless it is None."""
        done = subprocess.run(
            [sys.executable, "-m", "shoal", *words], env=self.env(operator), cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=320, check=False,
        )  # fmt: skip
        said = f"shoal {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert code is None or done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def begun(self, *words: str) -> "subprocess.Popen[str]":
        """The same, but it is left running."""
        return subprocess.Popen(
            [sys.executable, "-m", "shoal", *words], env=self.env(), cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def engine_plan(self, name: str, port: int, head: str, nodes: int) -> str:
        """A request for the simulated engine at that port, in a file that every host can read."""
        words = arguments(MODEL, MODEL, head, port, Parallel(1, nodes, ""), {})
        request = Request(
            MODEL, f"http://{head}:{port}/v1", (*words, "--sim-load-seconds", "0.2"), {"VLLM_HOST_IP": head}, SIM_SERVER
        )
        path = self.folder / name
        path.write_text(request.to_json())
        return str(path)


@dataclass
class Fleet(Operator):
    """The four hosts, and their operator."""

    @property
    def hosts(self) -> dict[str, SshHost]:
        """The hosts by name."""
        return {host.name: host for host in self.machines.hosts()}

    def write(self, head: str = "", worker: str = "") -> None:
        """The cluster file as `init` writes it, with a simulated engine; variables of the first and the third host."""
        self.file.unlink(missing_ok=True)
        self.shoal("init", *self.hosts, "--name", CLUSTER)
        text = self.file.read_text().replace("model: smollm2", f"model: {MODEL}")
        own = {
            "gpu-1": f", SHOAL_ENGINE_PLAN: {self.engine_plan('engine.json', 8000, HEAD, len(self.hosts))}{head}",
            "gpu-3": worker,
        }
        for name in self.hosts:
            env = f"    env: {{SHOAL_NUM_CPUS: 1{own.get(name, '')}}}\n"
            text = text.replace(f"  - name: {name}\n", f"  - name: {name}\n{env}")
        more = f"runtime: process\npython: {sys.executable}\n"
        self.file.write_text(text + more)

    def units(self) -> dict[str, int]:
        """By host and unit: the process id of what runs there; 0 where it has ended."""
        found = {}
        for name, host in self.hosts.items():
            for unit in ("agent", "engine"):
                told: dict[str, Any] = json.loads(host.read(f"{ROOT}/state/{unit}.unit") or "{}")
                if told:
                    alive = host.read(f"/proc/{told['pid']}/stat") is not None
                    found[f"{name} {unit}"] = int(told["pid"]) if alive else 0
        return found

    def traces(self) -> dict[str, list[str]]:
        """What a cluster could leave on a host: files, processes, sockets and sessions, shared memory."""
        look = r"""
cd ~ && find . -path './.pyenv' -prune -o -print | sort
ps -eo args= | grep -v -e 'sshd' -e 'sort' -e 'ps -eo' -e 'grep' -e 'find \.' -e 'sh -c' -e 'timeout' | sort
ls /dev/shm
ls -d /tmp/shoal-* | grep -E 'shoal-[0-9a-f]{8}$'
"""
        return {
            name: host.run(["sh", "-c", look], timeout=30, ok=range(3)).out.splitlines()
            for name, host in self.hosts.items()
        }


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The hosts; the cluster on them is taken down in any case."""
    folder = tmp_path_factory.mktemp("operator")
    with ssh_hosts(4, subnet=SUBNET) as machines:
        made = Fleet(machines, folder)
        try:
            yield made
        finally:
            if made.file.exists():
                made.shoal("down", "-f", str(made.file), "--purge", code=None)
