"""The hosts of a cluster file, by the names that it gives them."""

from shoal.host.ssh import SshHost
from shoal.spec.cluster import ClusterSpec


def open_hosts(spec: ClusterSpec, *, config: str = "", sockets: str = "") -> dict[str, SshHost]:
    """A host for each name, in the file's order. No connection is made before the first command.

    Args:
        config: an ssh config to read instead of the user's.
        sockets: where connections are kept for a minute; by default a folder of this user's in /tmp.
    """
    return {host.name: open_host(host.name, host.ssh or host.name, config, sockets) for host in spec.hosts}


def open_host(name: str, destination: str, config: str = "", sockets: str = "") -> SshHost:
    """One host, called ``name`` in messages."""
    return SshHost(destination, name=name, config=config, sockets=sockets)
