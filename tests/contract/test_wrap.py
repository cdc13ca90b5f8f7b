"""Places within a machine: what a prefix may do to us, and whose the command is behind it."""

import shutil
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.contract.conftest import namespace_process
from tests.docker.machine import IMAGE
from tests.sshd import SBIN

from shoal.errors import HostUnreachable
from shoal.host.local import LocalHost
from shoal.host.wrap import WrapHost, as_root, container, namespaces, network

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def nobody() -> WrapHost:
    """This machine, as a user without any right."""
    host = WrapHost(LocalHost(), NOBODY, name="nobody")
    if LocalHost().run(["id", "-u"], timeout=20).out != "0\n" or not shutil.which("setpriv", path=SBIN):
        pytest.skip("needs root, and setpriv (apt install util-linux)")
    return host


def test_what_may_not_be_read_reads_as_nothing(nobody: WrapHost) -> None:
    """A file and a folder without permission are as if they were not there."""
    assert (nobody.run(["id", "-u"], timeout=20).out, nobody.read("/etc/shadow")) == ("65534\n", None)
    assert nobody.list("/root/.ssh") == nobody.list("/proc/1/fd") == ()


def test_a_place_that_may_not_be_written_is_left_alone(nobody: WrapHost) -> None:
    """A refused write is told in the machine's words."""
    with pytest.raises(Exception, match="could not be written") as raised:
        nobody.write("/etc/shoal-test", "x")
    assert "Permission denied" in str(raised.value)


def test_sudo_that_asks_for_a_password_is_refused(nobody: WrapHost) -> None:
    """A sudo that would ask is no failed command, and nothing is entered."""
    if not shutil.which("sudo", path=SBIN):
        pytest.skip("not installed: sudo (apt install sudo)")
    with pytest.raises(HostUnreachable) as raised:
        as_root(nobody).run(["id"], timeout=20)
    assert raised.value.why == "sudo asks for a password there"


def test_sudo_makes_root() -> None:
    """Behind sudo a command is root's."""
    if not shutil.which("sudo", path=SBIN):
        pytest.skip("not installed: sudo (apt install sudo)")
    if LocalHost().run(["sudo", "-n", "true"], timeout=20, ok=range(256)).code:
        pytest.skip("sudo asks for a password here")
    assert as_root(LocalHost()).run(["id", "-u"], timeout=20).out == "0\n"


def test_a_process_that_is_gone_is_named() -> None:
    """Where the process that keeps the namespaces has ended, the place is not reached."""
    with namespace_process() as pid:
        host = namespaces(LocalHost(), pid, name="inside")
        assert host.run(["hostname"], timeout=20).code == 0
    with pytest.raises(HostUnreachable) as raised:
        host.run(["hostname"], timeout=20)
    assert raised.value.why == f"process {pid}, whose namespaces are meant, is gone"


def test_a_container_that_is_not_there_is_named(docker_host: WrapHost) -> None:
    """Its name is told, and a container that has ended is told as such."""
    with pytest.raises(HostUnreachable) as raised:
        container(docker_host, "none").run(["true"], timeout=20)
    assert (raised.value.what, raised.value.why) == ("none cannot be reached", "there is no container none")
    docker_host.run(["docker", "run", "--network=none", "--name=ended", IMAGE, "true"], timeout=60)
    with pytest.raises(HostUnreachable) as raised:
        container(docker_host, "ended").run(["true"], timeout=20)
    assert raised.value.why == "the container is not running"


def test_no_docker_engine_is_told() -> None:
    """Where no engine answers, that is the reason."""
    with pytest.raises(HostUnreachable) as raised:
        container(WrapHost(LocalHost(), ("env", "DOCKER_HOST=unix:///none.sock")), "box").run(["true"], timeout=20)
    assert raised.value.why in {"no Docker engine answers", "docker is not installed there"}


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace; it is removed afterwards."""
    name, host = f"shoal-test-{uuid4().hex[:8]}", LocalHost()
    made = host.run(["ip", "netns", "add", name], timeout=20, ok=range(256))
    if made.code:
        pytest.skip(f"no network namespace can be made: {made.err.strip()}")
    yield name
    host.run(["ip", "netns", "del", name], timeout=20)


def test_a_network_namespace_has_a_network_of_its_own(netns: str) -> None:
    """A command there sees that namespace's interfaces alone."""
    assert network(LocalHost(), netns).list("/sys/class/net") == ("lo",)


def test_a_network_namespace_that_is_not_there_is_named() -> None:
    """Its name is told."""
    with pytest.raises(HostUnreachable) as raised:
        network(LocalHost(), "shoal-none").run(["true"], timeout=20)
    assert raised.value.why == "there is no network namespace shoal-none"
