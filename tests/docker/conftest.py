"""Three machines with Docker engines: two that serve a model together, and one for all that goes wrong."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.docker.deployment import Deployment, wait_status
from tests.docker.machine import Machine, join, machine

from shoal.engine.models import resolve
from shoal.host.local import LocalHost
from shoal.spec.environ import cache_dir, environ
from shoal.spec.registry import builtin

TOOLS = (
    "dockerd",
    "containerd",
    "runc",
    "docker",
    "docker-init",
    "docker-compose",
    "ip",
    "unshare",
    "nsenter",
    "setpriv",
)
HEAD, WORKER, LONER = "192.168.100.1", "192.168.100.2", "192.168.100.3"
ENGINE = f"http://{HEAD}:8701/status"
RAY_TOKEN = "a-token-of-this-test-only-" + "0" * 38
# What an agent with malformed settings is given a minute for begins early, beside the rest.
MALFORMED = {"VLLM_HOST_IP": LONER, "RAY_ADDRESS": f"{HEAD}:6379", "RAY_MODE": "wroker"}


@pytest.fixture(scope="session")
def tools() -> None:
    """What the machines are made of; skipped where it is not there."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("Docker engines in namespaces need Linux and root")
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt install docker.io docker-compose iproute2)")


@pytest.fixture(scope="session")
def model() -> Path:
    """The small model as a folder, converted once and kept in shoal's cache."""
    found = resolve(builtin()["smollm2"], cache_dir(environ()), LocalHost(), lambda _: None, sys.executable)
    return Path(found)


@dataclass(frozen=True)
class Boxes:
    """The machines."""

    head: Machine
    worker: Machine
    loner: Machine


@pytest.fixture(scope="session")
def boxes(tools: None) -> Iterator[Boxes]:
    """All three, up; a cable lies between the first two."""
    with ExitStack() as stack:
        made = []
        for name, address in (("box1", HEAD), ("box2", WORKER), ("box3", LONER)):
            # Not below pytest's folder: the path of a socket ends at 107 bytes, and /tmp is the machine's own.
            work = Path(tempfile.mkdtemp(prefix="shoal-docker-", dir="/var/tmp"))
            made.append(stack.enter_context(machine(name, address, work)))
        join(made[0], made[1])
        made[2].ok("ip", "link", "add", "fab0", "type", "veth", "peer", "name", "fab1")
        made[2].ok("ip", "address", "add", f"{LONER}/24", "dev", "fab0")
        for end in ("fab0", "fab1"):
            made[2].ok("ip", "link", "set", end, "up")
        yield Boxes(*made)


@pytest.fixture(scope="session")
def malformed(boxes: Boxes) -> Deployment:
    """A worker whose settings are malformed, just started."""
    found = Deployment(boxes.loner, "worker", "malformed")
    found.render()
    found.fill(MALFORMED)
    found.compose("up", "-d")
    return found


@dataclass(frozen=True)
class Pair:
    """Head and worker, brought up as their READMEs say."""

    head: Deployment
    worker: Deployment
    model: str

    def wait_ready(self) -> None:
        """Until the engine has produced a token."""
        wait_status(self.head.machine, ENGINE, "ready", 240)

    @property
    def key(self) -> str:
        """The API key that the head made."""
        return (self.head.folder / "state/api.key").read_text().strip()


@pytest.fixture(scope="session")
def started(boxes: Boxes, malformed: Deployment, model: Path) -> Pair:
    """Both folders rendered, their `.env` filled in, both up; the worker first."""
    worker, head = Deployment(boxes.worker, "worker"), Deployment(boxes.head, "head")
    token = "/var/lib/shoal/ray.token"
    common = {"MODEL_CACHE": str(model.parent), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
    for folder in (worker, head):
        folder.render()
        folder.secret("ray.token", RAY_TOKEN)
    worker.fill(common | {"VLLM_HOST_IP": WORKER, "RAY_ADDRESS": f"{HEAD}:6379"})
    head.fill(
        common | {"VLLM_HOST_IP": HEAD, "SHOAL_EXPECT": f"{HEAD}:1,{WORKER}:1", "MODEL_NAME": f"/models/{model.name}"}
    )
    worker.compose("up", "-d")
    head.compose("up", "-d")
    return Pair(head, worker, model.name)


@pytest.fixture
def pair(started: Pair) -> Pair:
    """Head and worker, ready."""
    started.wait_ready()
    return started
