"""The machines of the contract: one of each form, each with a folder of its own."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.docker import machine as engines
from tests.docker.conftest import missing_tools
from tests.sshd import SBIN, Keys, free_ports, remove, require_openssh, sshd

from shoal.host.base import Host
from shoal.host.fake import FakeHost
from shoal.host.local import LocalHost
from shoal.host.ssh import SshHost
from shoal.host.wrap import WrapHost, container, namespaces

REAL = ("local", "ssh", "ssh-dash", "nsenter", "nsenter-over-ssh", "docker")

# What a login may meet, one port each: a shell that is not bash, one that refuses, one that talks.
LOGINS = {
    "plain": "",
    "dash": '/bin/dash -c "$SSH_ORIGINAL_COMMAND"',
    "nologin": "/usr/sbin/nologin",
    "noisy": 'echo welcome; echo "setlocale: cannot change locale" >&2; eval "$SSH_ORIGINAL_COMMAND"',
}


@dataclass(frozen=True)
class SshLab:
    """A server on this machine, and the client's config that names each of its logins."""

    keys: Keys
    ports: dict[str, int]
    config: str
    log: Path
    sockets: str

    def host(self, name: str = "plain", *, config: str = "", patience: int = 10) -> SshHost:
        return SshHost(name, config=config or self.config, sockets=self.sockets, patience=patience)


@pytest.fixture(scope="session")
def ssh_lab() -> Iterator[SshLab]:
    """One real sshd for the whole session. Its folder's path is short, as a control socket's must be."""
    require_openssh()
    folder = Path(tempfile.mkdtemp(prefix="ssh-", dir="/tmp"))
    keys = Keys.make(folder)
    ports = dict(zip(LOGINS, free_ports(len(LOGINS)), strict=True))
    forced = [f"Match LocalPort {ports[name]}\n  ForceCommand {command}" for name, command in LOGINS.items() if command]
    config = folder / "config"
    config.write_text("".join(keys.client(name, "127.0.0.1", port) for name, port in ports.items()))
    try:
        with sshd(keys, "server", "127.0.0.1", list(ports.values()), forced="\n".join(forced)) as log:
            yield SshLab(keys, ports, str(config), log, str(folder))
    finally:
        remove(folder)


@contextmanager
def namespace_process() -> Iterator[int]:
    """A process with a network, mounts, name, IPC and process tree of its own; its id."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    if not shutil.which("unshare", path=SBIN):
        pytest.skip("not installed: unshare, nsenter (apt install util-linux)")
    argv = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    outer = subprocess.Popen([*argv, "sleep", "3600"], stdin=subprocess.DEVNULL)
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        end = time.monotonic() + 10
        # The child is another program's until it has become sleep: before that its namespaces are not whole.
        while not (found := children.read_text().split()) or Path(f"/proc/{found[0]}/comm").read_text() != "sleep\n":
            assert time.monotonic() < end, "unshare made no child"
            time.sleep(0.01)
        yield int(found[0])
    finally:
        outer.kill()
        outer.wait()


@pytest.fixture(scope="session")
def namespace_pid() -> Iterator[int]:
    with namespace_process() as pid:
        yield pid


@pytest.fixture(scope="session")
def docker_host() -> Iterator[WrapHost]:
    """This machine, whose docker speaks to an engine of the tests' own; a container `box` runs there."""
    if why := missing_tools():
        pytest.skip(why)
    work = Path(tempfile.mkdtemp(prefix="shoal-docker-", dir="/var/tmp"))
    with engines.machine("engine", "127.0.0.1", work) as engine:
        engine.ok("docker", "run", "--detach", "--network=none", "--name=box", engines.IMAGE, "sleep", "3600")
        yield WrapHost(LocalHost(), ("env", f"DOCKER_HOST=unix://{work}/docker.sock"))


@dataclass(frozen=True)
class Machine:
    """A host, and a folder on it."""

    host: Host
    folder: str


def build(form: str, request: pytest.FixtureRequest) -> Host:
    if form == "fake":
        return FakeHost()
    if form == "local":
        return LocalHost()
    if form.startswith("nsenter"):
        over = request.getfixturevalue("ssh_lab").host() if form.endswith("ssh") else LocalHost()
        return namespaces(over, request.getfixturevalue("namespace_pid"), name="inside")
    if form == "docker":
        return container(request.getfixturevalue("docker_host"), "box")
    lab: SshLab = request.getfixturevalue("ssh_lab")
    return lab.host("dash" if form == "ssh-dash" else "plain")


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine that runs commands."""
    host = build(request.param, request)
    folder = host.run(["mktemp", "-d", "/tmp/contract.XXXXXX"], timeout=20).out.strip()
    yield Machine(host, folder)
    host.run(["rm", "-r", folder], timeout=20)


@pytest.fixture(params=(*REAL, "fake"))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine of any form; a made-up one must be told what its commands would say."""
    host = build(request.param, request)
    if isinstance(host, FakeHost):
        yield Machine(host, "/tmp/contract")
        return
    folder = host.run(["mktemp", "-d", "/tmp/contract.XXXXXX"], timeout=20).out.strip()
    yield Machine(host, folder)
    host.run(["rm", "-r", folder], timeout=20)
