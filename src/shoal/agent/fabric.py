"""The network interface that carries the fabric's address: NCCL's and Gloo's sockets are pinned to it.

Left alone, Gloo takes the address that the host name resolves to. That is a loopback address on many machines, and the
ranks of two nodes then wait a minute for each other and fail.
"""

from collections.abc import Mapping

import psutil

from shoal.agent.ray_command import is_loopback

NAME = "NCCL_SOCKET_IFNAME"


def interfaces() -> dict[str, tuple[str, ...]]:
    """This machine's interfaces with their addresses."""
    found = psutil.net_if_addrs()
    return {name: tuple(entry.address.partition("%")[0] for entry in entries) for name, entries in found.items()}


def choose(env: Mapping[str, str], address: str, found: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, str], str]:
    """The environment with the interface in it, and the words that say why; unchanged where one is set. Pure.

    The sign in front makes NCCL take exactly this name, and not every one that begins so.
    """
    asked = env.get(NAME, "").strip()
    name = next((name for name, addresses in found.items() if address in addresses), None)
    if (asked and asked.lower() != "auto") or name is None or is_loopback(address):
        return dict(env), ""
    return {**env, NAME: f"={name}"}, f"{NAME}: ={name} (chosen: this interface has {address})"
