"""``shoal firewall``."""

import re
from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.host.local import LocalHost
from shoal.ops.firewall import kernel_ports, rules
from shoal.plan.firewall import Wish
from shoal.spec.environ import environ

PORT = click.IntRange(1, 65535)


@click.command("firewall")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS|NETWORK]...")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the one in this folder.")
@click.option("--also", multiple=True, metavar="ADDRESS|NETWORK", help="Counts as a node: a machine that watches them.")
@click.option("--api-from", multiple=True, metavar="ADDRESS|NETWORK", help="Who may use the API. Default: everybody.")
@click.option("--leave", multiple=True, type=PORT, help="A port to leave as it is, such as an ssh port above 32768.")
@click.option("--kernel-ports", metavar="FIRST-LAST", help="The nodes' net.ipv4.ip_local_port_range.")
def verb(
    addresses: tuple[str, ...],
    file: Path | None,
    also: tuple[str, ...],
    api_from: tuple[str, ...],
    leave: tuple[int, ...],
    kernel_ports: str | None,
) -> None:
    """Print rules for nftables that close a node's ports to all but the nodes of its cluster.

    Closed are the ports of Ray, of torch, of shoal's agents and its supervisor; the API stays open. One set of rules
    fits every node. Nothing is changed here; on a node: shoal firewall ADDRESS... | sudo nft -f -

    Without a file, the ADDRESSes are the nodes, and those in SHOAL_EXPECT, VLLM_HOST_IP and RAY_ADDRESS.
    """
    ports = _kernel_ports(kernel_ports, here=file is None)
    click.echo(rules(file, addresses, environ(), Wish(also, api_from, leave, ports)), nl=False)


def _kernel_ports(said: str | None, *, here: bool) -> tuple[int, int]:
    """The range in a call's words, or what the machine says."""
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", said) if said else None
    if said and (found is None or not 0 < int(found[1]) <= int(found[2]) < 65536):
        raise UsageError(f"--kernel-ports {said}: expected FIRST-LAST", fix="--kernel-ports 32768-60999")
    return kernel_ports(LocalHost(), (int(found[1]), int(found[2])) if found else None, here=here)
