"""Which ports of a node are closed to all but the cluster's own machines, and why. Pure.

Ray, torch, Gloo and NCCL listen on all addresses or on ports of the kernel's choice, and cannot be told otherwise. So
what is closed is named by port: Ray's block, shoal's endpoints, and the kernel's range for all that picks its own.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.errors import ConfigError
from shoal.plan.ports import BLOCK
from shoal.plan.push import PORT as PUSH
from shoal.spec.cluster import FOUND_BY_PLAN, ClusterSpec
from shoal.spec.env_table import BY_NAME
from shoal.spec.variable import is_address

GCS = 6379
KERNEL_PORTS = (32768, 60999)  # Linux' own net.ipv4.ip_local_port_range


@dataclass(frozen=True)
class Ports:
    """A range of TCP ports, both ends in it, and what listens there."""

    first: int
    last: int
    why: str


@dataclass(frozen=True)
class Api:
    """The API's port. ``sources`` are who may reach it beside the cluster; None: everybody, who still needs the key."""

    port: int
    sources: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Firewall:
    """What one rule set says; the same fits every node of a cluster.

    ``members`` are addresses and networks in their shortest spelling. ``left`` are ports within a closed range that
    stay as they are.
    """

    cluster: str
    members: tuple[str, ...]
    closed: tuple[Ports, ...]
    api: Api | None
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What a user may say besides."""

    also: tuple[str, ...] = ()
    api_from: tuple[str, ...] = ()
    leave: tuple[int, ...] = ()
    kernel_ports: tuple[int, int] = KERNEL_PORTS


def of_cluster(spec: ClusterSpec, wish: Wish) -> Firewall:
    """The rules for the machines of a cluster file.

    Raises:
        ConfigError: a machine's address is not written there.
    """
    if unknown := [host.name for host in spec.hosts if host.fabric == FOUND_BY_PLAN]:
        raise ConfigError(
            f"the fabric address of {', '.join(unknown)} is not in the file",
            why="rules name the machines that may connect, by address",
            fix="write it beside `fabric:` (shoal init HOST... finds it), or: shoal firewall ADDRESS...",
        )
    envs = [host.env for host in spec.hosts]
    listens = spec.serving.host != "loopback"
    logins = (re.fullmatch(r"ssh://.*:(\d+)", host.ssh or "") for host in spec.hosts)
    wish = replace(wish, leave=(*wish.leave, *(int(found[1]) for found in logins if found)))
    api = Api(spec.serving.port, wish.api_from or None) if listens else None
    return firewall(spec.cluster, [host.fabric for host in spec.hosts], envs, api, wish)


def of_environment(addresses: Sequence[str], env: Mapping[str, str], wish: Wish) -> Firewall:
    """The rules for a node that is set by its environment alone; these addresses, and those which it names.

    Raises:
        ConfigError: neither names a machine.
    """
    named = [item.strip().partition(":")[0] for item in env.get("SHOAL_EXPECT", "").split(",")]
    head = env.get("RAY_ADDRESS", "").rpartition(":")[0].strip("[]")
    known = [*addresses, *named, env.get("VLLM_HOST_IP", "").strip(), head]
    members = [address for address in known if address]
    if not members:
        raise ConfigError(
            "no machine of the cluster is named",
            why="there is no shoal.yaml here, and neither SHOAL_EXPECT nor VLLM_HOST_IP is set",
            fix="shoal firewall ADDRESS...   # every node's fabric address, or their network",
        )
    api = Api(_port(env, "SHOAL_API_PORT"), wish.api_from or None)
    return firewall("", members, [env], api, wish)


def firewall(
    cluster: str, members: Sequence[str], envs: Sequence[Mapping[str, str]], api: Api | None, wish: Wish
) -> Firewall:
    """The rules for these machines, whose environments are set so."""
    everybody = [network(word) for word in (*members, *wish.also)]
    first, last = wish.kernel_ports
    closed = (
        *_each(envs, "SHOAL_PORT_BASE", BLOCK, "Ray: node manager, object manager, workers, metrics"),
        *(Ports(port, port, "Ray: GCS") for port in sorted({_gcs(env) for env in envs})),
        *_each(envs, "SHOAL_AGENT_PORT", 1, "shoal: agents"),
        *_each(envs, "SHOAL_SERVE_PORT", 1, "shoal: the engine's supervisor"),
        Ports(PUSH, PUSH, "shoal: a push of models or images, while one runs"),
        Ports(first, last, "torch's store, Gloo, NCCL: the kernel's range for ports that nobody chose"),
    )
    if api and api.sources is not None:
        api = Api(api.port, tuple(network(word) for word in api.sources))
    return Firewall(cluster, tuple(dict.fromkeys(everybody)), closed, api, tuple(sorted(set(wish.leave))))


def _each(envs: Sequence[Mapping[str, str]], name: str, width: int, why: str) -> list[Ports]:
    return [Ports(port, port + width - 1, why) for port in sorted({_port(env, name) for env in envs})]


def _port(env: Mapping[str, str], name: str) -> int:
    return int(env.get(name, "").strip() or BY_NAME[name].default or 0)


def _gcs(env: Mapping[str, str]) -> int:
    port = env.get("RAY_ADDRESS", "").rpartition(":")[2]
    return int(port) if port.isdecimal() else GCS


def network(word: str) -> str:
    """An address, or a network such as 192.168.100.0/24, in its shortest spelling.

    Raises:
        ConfigError: it is neither.
    """
    if is_address(word):
        return str(ipaddress.ip_address(word))
    try:
        return str(ipaddress.ip_network(word))
    except ValueError as error:
        why = str(error).removeprefix(f"{word!r} ")
        what = f"{word!r} is no address and no network: {why}"
        raise ConfigError(what, fix="expected 192.168.100.1 or 192.168.100.0/24") from error
