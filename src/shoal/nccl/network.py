"""Which network NCCL would use: its own verbs code, a plugin, or sockets. Predictions are keyed by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shoal.nccl.environment import integer

NET, PLUGIN, DISABLE, IBEXT_DISABLE = "NCCL_NET", "NCCL_NET_PLUGIN", "NCCL_IB_DISABLE", "NCCL_IBEXT_DISABLE"
NVIDIA = ("hpcx", "rdma_sharp", "ibext")
Kind = Literal["internal", "plugin", "socket"]


@dataclass(frozen=True)
class Network:
    """The implementation. The rules of ``internal`` are known by version, those of a plugin are not."""

    kind: Kind
    why: str


def network(env: Mapping[str, str], plugin: str | None) -> Network:
    """What NCCL would use; ``plugin`` is the file that would be loaded, empty where none is, None where not known."""
    asked = env.get(NET, "").lower()
    if asked == "socket":
        return Network("socket", f"{NET}={env[NET]}")
    if loaded := _plugin(env, plugin, asked):
        return Network("plugin", loaded)
    if integer(env.get(DISABLE), 0):
        return Network("socket", f"{DISABLE}={env[DISABLE]}")
    return Network("internal", "NCCL's own network")


def _plugin(env: Mapping[str, str], plugin: str | None, asked: str) -> str:
    """Which plugin chooses in NCCL's place, in words; empty where none does."""
    named = env.get(PLUGIN, "")
    if asked == "ib" or named.lower() == "none" or plugin == "":
        return ""
    nvidias = any(word in (plugin or named or asked).lower() for word in NVIDIA)
    if nvidias and integer(env.get(IBEXT_DISABLE), 0):
        return ""
    if named:
        return f"{PLUGIN}={named}"
    return f"the plugin {plugin} is found" if plugin else f"{NET}={env[NET]}" if asked else ""
