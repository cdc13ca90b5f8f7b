"""``shoal firewall``: which machines belong together is in a cluster file, in the words of the call, or around us."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from shoal.errors import UsageError
from shoal.host.base import Host
from shoal.plan.firewall import KERNEL_PORTS, Wish, of_cluster, of_environment
from shoal.render.firewall import nftables
from shoal.spec import cluster

KERNEL = "/proc/sys/net/ipv4/ip_local_port_range"


def rules(file: Path | None, addresses: Sequence[str], env: Mapping[str, str], wish: Wish) -> str:
    """The text for ``nft -f``.

    Raises:
        UsageError: a file and addresses are named, or neither and there is nothing to go by.
    """
    if file and addresses:
        raise UsageError("both a cluster file and addresses", fix="name one of them; --also adds machines to a file's")
    if file is None and not addresses and Path(cluster.DEFAULT_FILE).is_file():
        file = Path(cluster.DEFAULT_FILE)
    plan = of_cluster(cluster.load(file), wish) if file else of_environment(addresses, env, wish)
    return nftables(plan)


def kernel_ports(host: Host, said: tuple[int, int] | None, *, here: bool) -> tuple[int, int]:
    """The range that is said, else this machine's where the rules are for it, else the kernel's own."""
    if said:
        return said
    words = (host.read(KERNEL) or "").split() if here else []
    return (int(words[0]), int(words[1])) if len(words) == 2 else KERNEL_PORTS
