"""A cluster on two ssh hosts, real Ray under the simulated engine: what its operator sees, and what nobody does."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.subnets import free_subnet

from shoal.agent.key import derive
from shoal.engine.launch import Request
from shoal.host import capture
from shoal.host.ssh import SshHost
from shoal.lab.plan import SIM_SERVER
from shoal.lab.sim.answers import MODEL, answer, chat_prompt
from shoal.plan.engine import arguments
from shoal.plan.parallel import Parallel

SUBNET = free_subnet(141)
HEAD = f"{SUBNET}.1"
CLUSTER = "watched"
ROOT = f"{Path.home()}/.local/share/shoal/{CLUSTER}"
FILE = f"""\
cluster: {CLUSTER}
runtime: process
python: {sys.executable}
model: {MODEL}
hosts:
  - {{name: gpu-1, fabric: {HEAD}, gpus: 1, env: {{SHOAL_NUM_CPUS: 1, SHOAL_ENGINE_PLAN: <request>}}}}
  - {{name: gpu-2, fabric: {SUBNET}.2, gpus: 1, env: {{SHOAL_NUM_CPUS: 1}}}}
"""
# The user's own ssh, which reads the tests' config in place of his.
SSH = '#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n'
# Every process of the host, with what it was started with and what it has in its environment.
PROCESSES = r"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n'"
# Every file of the cluster's but the three that hold a secret and nothing else.
FILES = (
    'find "$0" /tmp/shoal-*/ -type f ! -name "*.pyz" ! -name api.key ! -name ray.token '
    r"-size -8000k -exec cat {} + 2>/dev/null; ls -R /dev/shm"
)


@dataclass
class Chair:
    """An operator with a cluster file, and the hosts in it."""

    machines: SshHosts
    folder: Path

    def shoal(self, *words: str, code: int = 0) -> str:
        """What the operator types, and what that prints."""
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SHOAL_STATE_DIR": str(self.folder / "me")}
        argv = [sys.executable, "-m", "shoal", *words]
        done = subprocess.run(argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == code, f"shoal {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def hosts(self) -> list[SshHost]:
        """The hosts."""
        return self.machines.hosts()

    @property
    def secrets(self) -> list[str]:
        """The API key, Ray's token, and the key that is made of it."""
        own = self.folder / "me" / "clusters" / CLUSTER
        key, token = ((own / name).read_text().strip() for name in ("api.key", "ray.token"))
        return [key, token, derive(token)]


@pytest.fixture(scope="module")
def chair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chair]:
    """A cluster that is up; it is taken down without a trace."""
    folder = tmp_path_factory.mktemp("chair")
    words = arguments(MODEL, MODEL, HEAD, 8000, Parallel(1, 2, ""), {})
    plan = Request(
        MODEL, f"http://{HEAD}:8000/v1", (*words, "--sim-load-seconds", "0.2"), {"VLLM_HOST_IP": HEAD}, SIM_SERVER
    )
    (folder / "engine.json").write_text(plan.to_json())
    (folder / "shoal.yaml").write_text(FILE.replace("<request>", str(folder / "engine.json")))
    with ssh_hosts(2, subnet=SUBNET) as machines:
        (folder / "ssh").write_text(SSH.format(config=machines.config))
        (folder / "ssh").chmod(0o755)
        made = Chair(machines, folder)
        try:
            made.shoal("up", "-f", "shoal.yaml", "--timeout", "240")
            yield made
        finally:
            made.shoal("down", "-f", "shoal.yaml", "--purge")


def test_status_of_all(chair: Chair) -> None:
    """One document has both nodes and the engine, wherever the operator sits; the key's file is the operator's own."""
    status = json.loads(chair.shoal("status", "-f", "shoal.yaml", "--json"))
    assert [(node["name"], node["state"]) for node in status["nodes"]] == [("gpu-1", "up"), ("gpu-2", "up")]
    assert (status["cluster"], status["state"], status["engine"]["state"]) == (CLUSTER, "ready", "ready")
    assert status["api_key_file"] == str(chair.folder / "me" / "clusters" / CLUSTER / "api.key")


def test_logs_of_all(chair: Chair) -> None:
    """Every program's log is there under its name, in the order of time; a name or a word chooses."""
    lines = chair.shoal("logs", "-f", "shoal.yaml").splitlines()
    assert {line.partition(" |")[0].strip() for line in lines} >= {"gpu-1", "gpu-1.engine", "gpu-2"}
    story = [line for line in lines if re.search(r"\| \d\d:\d\d:\d\d [A-Z_]+ ", line)]
    clocks = [line.partition("| ")[2][:8] for line in story]
    assert clocks == sorted(clocks) or clocks[0] > clocks[-1]  # but for a run over midnight
    joined = chair.shoal("logs", "-f", "shoal.yaml", "gpu-2", "--grep", " UP ")
    assert joined
    assert chair.shoal("logs", "-f", "shoal.yaml", "--since", "1s", "--grep", "no such words") == ""


def test_a_command_on_one(chair: Chair) -> None:
    """A command runs on the host that is named, and its exit code is passed on."""
    assert chair.shoal("exec", "gpu-2", "--", "hostname") == "gpu-2\n"
    chair.shoal("exec", "gpu-1", "--", "sh", "-c", "exit 9", code=9)


def test_what_runs_is_asked_and_ordered_about(chair: Chair) -> None:
    """An answer, a restart that ends with a token, journals of both nodes as one story, all ranks, a proof's rows."""
    answered = chair.shoal("ask", "-f", "shoal.yaml", "--max-tokens", "4", "1 + 1?")
    assert answered == answer(chat_prompt([{"role": "user", "content": "1 + 1?"}]), 4) + "\n"
    restarted = chair.shoal("restart", "-f", "shoal.yaml", "--now").splitlines()
    assert restarted[0] == "restart (now): asked of the supervisor on gpu-1"
    assert restarted[-1] == "ready: a token was produced"
    story = [json.loads(line) for line in chair.shoal("events", "-f", "shoal.yaml", "--json").splitlines()]
    assert {one["node"] for one in story} == {"gpu-1", "gpu-2", "engine"}
    assert [one["time"] for one in story] == sorted(one["time"] for one in story)
    page = chair.shoal("autopsy", "-f", "shoal.yaml")
    assert "engine ready" in page
    assert [line for line in page.splitlines() if "told nothing" in line] == []
    proof = json.loads(chair.shoal("prove", "-f", "shoal.yaml", "--json", code=1))
    assert (proof["verdict"], proof["proven"]) == ("nothing", False)


def test_no_secret_is_where_others_look(chair: Chair) -> None:
    """No secret is in a command line, environment, log, journal, plan or rendered file, on a host or in an output."""
    for host in chair.hosts:
        processes = host.run(["sh", "-c", PROCESSES], timeout=30, ok=(0, 1)).out
        assert "shoal.pyz" in processes
        files = host.run(["sh", "-c", FILES, ROOT], timeout=60, ok=(0, 1)).out
        assert "RAY_AUTH_TOKEN_PATH=" in files
        assert [name for name in chair.secrets if name in processes or name in files] == []
    told = "".join(chair.shoal(*words, "-f", "shoal.yaml") for words in (("plan", "--json"), ("logs",), ("status",)))
    own = "".join(path.read_text() for path in (chair.folder / "me" / "clusters" / CLUSTER).glob("*.json"))
    assert [secret for secret in chair.secrets if secret in told + own] == []


def test_files_with_secrets_are_the_owners_alone(chair: Chair) -> None:
    """The token, the key, which the head alone has, and every environment file are of mode 0600."""
    names = ["state/ray.token", "state/api.key", "current/.env"]
    modes = {
        host.name: host.run(
            ["sh", "-c", f"cd {ROOT} && stat -L -c '%n %a' {' '.join(names)}"], timeout=20, ok=(0, 1)
        ).out.splitlines()
        for host in chair.hosts
    }
    assert modes == {
        "gpu-1": [f"{name} 600" for name in names],
        "gpu-2": [f"{name} 600" for name in names if not name.endswith("api.key")],
    }


def test_the_archive_has_both_hosts_and_no_secret(chair: Chair) -> None:
    """A support archive has logs, journal and release of both hosts, is a capture of both, and holds no secret."""
    chair.shoal("bundle", "-f", "shoal.yaml", "-o", "out.tar.gz")
    data = gzip.decompress((chair.folder / "out.tar.gz").read_bytes())
    assert [secret for secret in chair.secrets if secret.encode() in data] == []
    names = [f"out/nodes/{host}/{name}" for host in ("gpu-1", "gpu-2") for name in ("logs/agent.log", "release/.env")]
    assert [
        name for name in (*names, "out/plan/plan.json", "out/nodes/gpu-1/state/journal/") if name.encode() not in data
    ] == []
    assert [one.name for one in capture.load(chair.folder / "out.tar.gz")] == ["gpu-1", "gpu-2"]
