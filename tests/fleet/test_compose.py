"""A cluster in containers: a real Docker engine on one host, reached by a real sshd there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.docker.conftest import missing_tools
from tests.docker.machine import IMAGE, Machine, machine, own_folder
from tests.fleet.conftest import Operator
from tests.ssh_hosts import SshHosts
from tests.sshd import OWN_HOME, Keys, remove, sshd
from tests.subnets import free_subnet

pytestmark = pytest.mark.fleet
SUBNET = free_subnet(140)
ADDRESS, NAME, LINK = f"{SUBNET}.9", "box", f"fop{os.getpid()}"
LOOK = f"cd {Path.home()} && find . -path ./.pyenv -prune -o -print; ls -A /tmp; docker ps -aq"
FILE = """\
cluster: boxes
image: {image}
hosts:
  - {{name: box, gpus: 1, env: {{SHOAL_NUM_CPUS: 1, SHOAL_ENGINE_PLAN: /models/engine.json{more}}}}}
model: simulated
model-cache: {models}
"""


@contextmanager
def reached(box: Machine) -> Iterator[SshHosts]:
    """The machine with a cable to this one, an empty home, and an sshd whose sessions know where Docker answers."""
    ends = [LINK, "type", "veth", "peer", "name", "fab0", "netns", str(box.pid)]
    subprocess.run(["ip", "link", "add", *ends], check=True)
    subprocess.run(["ip", "address", "add", f"{SUBNET}.253/24", "dev", LINK], check=True)
    subprocess.run(["ip", "link", "set", LINK, "up"], check=True)
    box.ok("ip", "address", "add", f"{ADDRESS}/24", "dev", "fab0")
    box.ok("ip", "link", "set", "fab0", "up")
    box.ok("mkdir", "-p", "/run/sshd")
    home = OWN_HOME.replace("mount -t tmpfs none /dev/shm\n", "")
    box.ok("sh", "-c", home, "home", str(Path.home()), sys.base_prefix, "true")
    folder = box.work / "s"  # short, since a socket's path ends at 107 bytes
    folder.mkdir()
    keys = Keys.make(folder)
    config = folder / "config"
    config.write_text(keys.client(NAME, ADDRESS, 22))
    inside = ("nsenter", "-t", str(box.pid), "--net", "--mount", "--uts", "--ipc", "--pid")
    docker = f"SetEnv DOCKER_HOST=unix://{box.work}/docker.sock"
    try:
        with sshd(keys, NAME, ADDRESS, [22], forced=docker, prefix=inside, own_home=False):
            yield SshHosts(config, {NAME: (ADDRESS, "")})
    finally:
        subprocess.run(["ip", "link", "del", LINK], check=False)
        remove(folder)


@pytest.fixture
def box() -> Iterator[Machine]:
    if why := missing_tools():
        pytest.skip(why)
    with own_folder() as work, machine(NAME, ADDRESS, work) as made:
        yield made


def test_containers_over_ssh(box: Machine, tmp_path: Path) -> None:
    """It comes up in containers, a serving option starts the engine's alone, and `down --purge` leaves nothing."""
    models = box.work / "models"
    models.mkdir()
    with reached(box) as machines:
        bare = box.ok("sh", "-c", LOOK)
        me = Operator(machines, tmp_path)

        Path(me.engine_plan("engine.json", 8000, ADDRESS, 1)).rename(models / "engine.json")

        def write(more: str = "") -> None:
            me.file.write_text(FILE.format(image=IMAGE, models=models, more=more))

        write()
        assert "shoal is ready: 1 node(s), one endpoint" in me.shoal("up", "--timeout", "240").stdout
        first = {name: box.inspect(name)["Id"] for name in ("ray-head", "vllm")}
        assert "nothing to change" in me.shoal("up").stdout
        write(", SHOAL_WEDGED_AFTER: 50")
        me.shoal("up", "--timeout", "240")
        second = {name: box.inspect(name)["Id"] for name in ("ray-head", "vllm")}
        assert [name for name in first if first[name] != second[name]] == ["vllm"]
        me.shoal("down", "-f", "shoal.yaml", "--purge")
        assert box.ok("sh", "-c", LOOK) == bare


def test_an_image_that_is_not_there(box: Machine, tmp_path: Path) -> None:
    """It is named with its host before anything is put there."""
    with reached(box) as machines:
        me = Operator(machines, tmp_path)
        me.file.write_text(FILE.format(image="nobody/nothing:1", models="/models", more=""))
        done = me.shoal("up", code=5)
        assert done.stderr.splitlines()[0] == "error: nobody/nothing:1 is not on box"
        assert not box.run("ls", f"{Path.home()}/.local").stdout
