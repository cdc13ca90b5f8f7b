"""``shoal exec``: a command on one host of a cluster file, as if one sat before it."""

from collections.abc import Sequence
from pathlib import Path

from shoal.errors import UsageError
from shoal.host.local import LocalHost
from shoal.host.ssh import SshHost
from shoal.ops.fleet.hosts import open_hosts
from shoal.spec import cluster
from shoal.spec.nearest import did_you_mean

REACHED = 30.0  # seconds for the first word from the host
# ssh would answer 255 for a command that a signal ended; a shell says 128 and the signal's number.
PLAINLY = ("sh", "-c", '"$@"; exit $?', "sh")


def one_host(file: Path, name: str) -> SshHost:
    """The host of that name in a cluster file.

    Raises:
        UsageError: there is none of that name.
    """
    hosts = open_hosts(cluster.load(file))
    if name not in hosts:
        raise UsageError(
            f'{file} has no host "{name}"', why=did_you_mean(name, hosts), fix=f"hosts: {', '.join(hosts)}"
        )
    return hosts[name]


def inside(container: str, argv: Sequence[str], *, terminal: bool) -> tuple[str, ...]:
    """The command, in a running container where one is named."""
    flags = "-it" if terminal else "-i"
    return ("docker", "exec", flags, container, *argv) if container else tuple(argv)


def attach(host: SshHost, argv: Sequence[str], *, terminal: bool) -> int:
    """Run a command there, with this process's input and output; its exit code.

    Raises:
        HostUnreachable: the host cannot be reached; the command was not run.
    """
    host.run(["true"], timeout=REACHED)  # says why, where ssh itself would only answer 255
    return LocalHost().attach(host.session((*PLAINLY, *argv), terminal=terminal))
