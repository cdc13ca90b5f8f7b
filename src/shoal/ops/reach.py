"""Which cluster is meant: this machine's, or the one whose head's container this is."""

from collections.abc import Mapping

from shoal.agent.key import cluster_key
from shoal.errors import NotRunning
from shoal.host.local import LocalHost
from shoal.ops import local
from shoal.ops.restart import Near
from shoal.ops.where import Reach, of_record
from shoal.spec.env import serve_settings


def reach(env: Mapping[str, str]) -> Reach:
    """The local cluster, else the one whose head's container this is.

    Raises:
        NotRunning: there is neither.
    """
    if (record := local.running(env)) is not None:
        return of_record(record)
    if not env.get("SHOAL_EXPECT", "").strip():
        fix = "shoal up --local, or call it in the head's container, which has SHOAL_EXPECT"
        raise NotRunning("no cluster is up on this machine", fix=fix)
    settings = serve_settings(env)
    return Reach(
        tuple(address for address, gpus in settings.expect if gpus),
        settings.agent_port,
        cluster_key(LocalHost(), env),
        f"http://{_bracketed(settings.address)}:{settings.serve_port}",
        f"http://{_bracketed(settings.api_host or settings.address)}:{settings.api_port}/v1",
        settings.api_key_file,
    )


def supervisor(env: Mapping[str, str]) -> Near:
    """The supervisor of the local cluster, else of this container.

    Raises:
        NotRunning: there is neither.
    """
    if (record := local.running(env)) is not None:
        return Near.of(of_record(record))
    address = env.get("VLLM_HOST_IP", "").strip()
    if not address:
        raise NotRunning("nothing is up", fix="shoal up --local")
    port = env.get("SHOAL_SERVE_PORT", "").strip() or "8701"
    return Near(f"http://{_bracketed(address)}:{port}", cluster_key(LocalHost(), env))


def _bracketed(address: str) -> str:
    shown = "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104 (compared, not bound)
    return f"[{shown}]" if ":" in shown else shown
