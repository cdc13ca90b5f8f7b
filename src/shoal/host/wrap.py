"""A place within a machine: other rights, another namespace, a container. A command gets a prefix, and no more."""

from shoal.host.base import Host
from shoal.host.far import Cause, FarHost

CAUSES = (
    Cause(
        r"sudo: .*(?:password is required|terminal is required)",
        "sudo asks for a password there",
        "on {host}: sudo visudo, and give the user NOPASSWD; or name root as the ssh user",
    ),
    Cause(
        r"(?:^|failed to run command .)(?P<program>sudo|docker|nsenter|ip)(?:: not found|.: No such file)",
        "{program} is not installed there",
        "on {host}: install {program}",
    ),
    Cause(
        r"No such container: (?P<name>\S+)",
        "there is no container {name}",
        "docker ps -a   # look at its name",
    ),
    Cause(r"[Cc]ontainer (?P<id>\S+) is not running", "the container is not running", "docker start {id}"),
    Cause(
        r"permission denied while trying to connect to the Docker daemon",
        "this user may not talk to Docker",
        "sudo usermod -aG docker $USER   # and log in again",
    ),
    Cause(
        r"Cannot connect to the Docker daemon",
        "no Docker engine answers",
        "sudo systemctl start docker",
    ),
    Cause(
        r"nsenter: .*/proc/(?P<pid>\d+)/",
        "process {pid}, whose namespaces are meant, is gone",
        "start it again",
    ),
    Cause(
        r'Cannot open network namespace "(?P<name>[^"]+)"',
        "there is no network namespace {name}",
        "ip netns list",
    ),
)


class WrapHost(FarHost):
    """A host's commands behind a prefix, run on that host. It is called as the host is, unless it has a ``name``."""

    causes = CAUSES
    grace = 5.0

    def __init__(self, inner: Host, prefix: tuple[str, ...], *, name: str = "") -> None:
        super().__init__(name or inner.name, inner, address=inner.name)
        self._prefix = prefix

    def carry(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command, after its prefix."""
        return (*self._prefix, *argv)


def as_root(host: Host) -> WrapHost:
    """The host, as root by sudo; a sudo that asks for a password is HostUnreachable."""
    return WrapHost(host, ("sudo", "-n", "--"))


def container(host: Host, name: str) -> WrapHost:
    """A running Docker container on the host."""
    return WrapHost(host, ("docker", "exec", "-i", name), name=name)


def namespaces(host: Host, pid: int, *, name: str) -> WrapHost:
    """The place where process ``pid`` of the host lives: all its namespaces."""
    return WrapHost(host, ("nsenter", "--target", str(pid), "--all", "--"), name=name)


def network(host: Host, name: str) -> WrapHost:
    """A named network namespace of the host."""
    return WrapHost(host, ("ip", "netns", "exec", name), name=name)
