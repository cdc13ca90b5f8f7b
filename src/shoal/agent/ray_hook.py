"""Runs inside `ray start` of a loopback worker: ``RAY_START_HOOK=shoal.agent.ray_hook.keep_loopback``.

Ray rewrites 127.0.0.1 to the machine's LAN address, where the GCS of a loopback head does not listen, and the
worker waits there for ever. A head is kept on loopback by Ray's own RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, with
which a worker refuses to start. Proven with Ray 2.60.0; Ray rewrites ``--node-ip-address`` before it calls
the hook, so a worker's own address is any 127.0.0.x but 127.0.0.1.
"""

from typing import Any


def keep_loopback(params: Any, head: bool) -> None:  # noqa: ARG001 - Ray's signature for the hook
    """Let this process leave 127.0.0.1 as it is. A Ray without the function is left as it is, too."""
    from ray._private import services

    if hasattr(services, "resolve_ip_for_localhost"):
        services.resolve_ip_for_localhost = unchanged


def unchanged(host: str) -> str:
    """The same address."""
    return host
