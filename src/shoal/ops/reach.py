"""Which cluster is meant, and where its parts answer: this machine's, or the one whose head's container this is."""

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.agent.key import cluster_key
from shoal.errors import NotRunning
from shoal.host.local import LocalHost
from shoal.ops import local
from shoal.ops.snapshot import token_file
from shoal.spec.env import serve_settings


@dataclass(frozen=True)
class Reach:
    """Where a cluster's parts answer."""

    addresses: tuple[str, ...]
    agent_port: int
    key: str | None
    serve_url: str
    endpoint: str
    api_key_file: str
    logs: str = ""


def reach(env: Mapping[str, str]) -> Reach:
    """The local cluster, else the one whose head's container this is.

    Raises:
        NotRunning: there is neither.
    """
    host = LocalHost()
    if (record := local.running(env)) is not None:
        return Reach(
            tuple(node.address for node in record.nodes),
            int(record.nodes[0].agent_url.rpartition(":")[2]),
            cluster_key(host, {"RAY_AUTH_TOKEN_PATH": token_file(record)}),
            record.serve_url,
            record.endpoint,
            record.api_key_file,
            record.log_dir,
        )
    if not env.get("SHOAL_EXPECT", "").strip():
        fix = "shoal up --local, or call it in the head's container, which has SHOAL_EXPECT"
        raise NotRunning("no cluster is up on this machine", fix=fix)
    settings = serve_settings(env)
    return Reach(
        tuple(address for address, gpus in settings.expect if gpus),
        settings.agent_port,
        cluster_key(host, env),
        f"http://{_bracketed(settings.address)}:{settings.serve_port}",
        f"http://{_bracketed(settings.api_host or settings.address)}:{settings.api_port}/v1",
        settings.api_key_file,
    )


def _bracketed(address: str) -> str:
    shown = "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104 (compared, not bound)
    return f"[{shown}]" if ":" in shown else shown
