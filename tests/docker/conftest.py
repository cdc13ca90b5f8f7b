"""Three machines with Docker engines: two that serve a model together, and one for all that goes wrong.

They live as long as one module's tests: what runs after them is to find nothing of theirs.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.docker.deployment import Deployment, wait_status
from tests.docker.machine import Machine, join, machine, own_folder

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
FOLDER, HUB_NAME = "smollm2", "shoal-tests/SmolLM2-135M"
RAY_TOKEN = "a-token-of-this-test-only-" + "0" * 38
MALFORMED = {"VLLM_HOST_IP": LONER, "RAY_ADDRESS": f"{HEAD}:6379", "RAY_MODE": "wroker"}


def missing_tools() -> str:
    """What the machines are made of and is not there, as the reason of a skip; nothing where all is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "Docker engines in namespaces need Linux and root"
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (apt install docker.io docker-compose iproute2)" if missing else ""


@pytest.fixture(scope="session")
def tools() -> None:
    """What the machines are made of; skipped where it is not there."""
    if why := missing_tools():
        pytest.skip(why)


@pytest.fixture(scope="module")
def models(tools: None) -> Iterator[Path]:
    """A folder of models: the small one as a folder, and once more as the hub's client keeps what it has fetched."""
    found = Path(resolve(builtin()["smollm2"], cache_dir(environ()), LocalHost(), lambda _: None, sys.executable))
    with own_folder() as made:
        commit = "0" * 40
        kept = made / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs/main").write_text(commit)
        for folder in (made / FOLDER, kept / "snapshots" / commit):
            shutil.copytree(found, folder, copy_function=_link)
        yield made


def _link(source: str, target: str) -> None:
    """A second name for the same bytes, where both lie on one file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@dataclass(frozen=True)
class Boxes:
    """The machines."""

    head: Machine
    worker: Machine
    loner: Machine


@pytest.fixture(scope="module")
def boxes(tools: None) -> Iterator[Boxes]:
    """All three, up; a cable lies between the first two."""
    with ExitStack() as stack:
        made = []
        for name, address in (("box1", HEAD), ("box2", WORKER), ("box3", LONER)):
            made.append(stack.enter_context(machine(name, address, stack.enter_context(own_folder()))))
        join(made[0], made[1])
        made[2].ok("ip", "link", "add", "fab0", "type", "veth", "peer", "name", "fab1")
        made[2].ok("ip", "address", "add", f"{LONER}/24", "dev", "fab0")
        for end in ("fab0", "fab1"):
            made[2].ok("ip", "link", "set", end, "up")
        yield Boxes(*made)


@pytest.fixture(scope="module")
def malformed(boxes: Boxes) -> Deployment:
    """A worker whose settings are malformed. It takes a minute to end, which passes while the others come up."""
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
    settings: dict[str, str]  # of the head

    def wait_ready(self) -> None:
        """Until the engine has produced a token."""
        wait_status(self.head.machine, ENGINE, "ready", 300)

    @property
    def key(self) -> str:
        """The API key that the head made."""
        return (self.head.folder / "state/api.key").read_text().strip()


@pytest.fixture(scope="module")
def started(boxes: Boxes, malformed: Deployment, models: Path) -> Pair:
    """Both folders rendered, their `.env` filled in, both up; the worker first."""
    worker, head = Deployment(boxes.worker, "worker"), Deployment(boxes.head, "head")
    token = "/var/lib/shoal/ray.token"
    common = {"MODEL_CACHE": str(models), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
    for folder in (worker, head):
        folder.render()
        folder.secret("ray.token", RAY_TOKEN)
    worker.fill(common | {"VLLM_HOST_IP": WORKER, "RAY_ADDRESS": f"{HEAD}:6379"})
    expect = f"{HEAD}:1,{WORKER}:1"
    settings = common | {"VLLM_HOST_IP": HEAD, "SHOAL_EXPECT": expect, "MODEL_NAME": f"/models/{FOLDER}"}
    head.fill(settings)
    worker.compose("up", "-d")
    head.compose("up", "-d")
    return Pair(head, worker, settings)


@pytest.fixture
def pair(started: Pair) -> Pair:
    """Head and worker, ready."""
    started.wait_ready()
    return started
