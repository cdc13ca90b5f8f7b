"""What is to be measured: a Ray cluster with the environment that reaches it, or the rails between hosts."""

from collections.abc import Mapping, Sequence

from shoal.agent.ray_command import is_loopback
from shoal.bench.rails import Way, ways
from shoal.checks.run import read
from shoal.errors import NotRunning, PreconditionFailed, UsageError
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.ops.fabric import NEEDS, version_of
from shoal.ops.local import cluster_dir, running
from shoal.plan.fabric import plan_fabric


def target(env: Mapping[str, str], address: str) -> tuple[str, dict[str, str]]:
    """Address of the GCS, and the environment of a driver for it: what is named, what is set, or the local cluster.

    Raises:
        NotRunning: nothing is named or set, and no local cluster is up.
        UsageError: the address is no HOST:PORT.
    """
    told = address or env.get("RAY_ADDRESS", "").strip()
    if told:
        if not told.rpartition(":")[0] or not told.rpartition(":")[2].isdigit():
            raise UsageError(f"--address {told}: expected HOST:PORT", fix="--address 192.168.100.1:6379")
        return told, {**env, "RAY_ADDRESS": told}
    record = running(env)
    if record is not None and not record.ray_address:
        raise UsageError(
            "the local cluster has no Ray, and the bench runs in Ray", fix="shoal up --local --executor ray"
        )
    if record is None:
        raise NotRunning("no cluster is up on this machine", fix="shoal up --local, or --address HOST:PORT")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cluster_dir(env) / "ray.token")}
    # Ray would replace 127.0.0.1 by the machine's address on the LAN.
    stay = is_loopback(record.ray_address.rpartition(":")[0])
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if stay else {}
    return record.ray_address, {**env, **token, **loopback, "RAY_ADDRESS": record.ray_address}


def rails_between(hosts: Sequence[Host]) -> tuple[Way, ...]:
    """What perftest is to measure between these hosts: every rail of their fabric, neighbour by neighbour.

    Raises:
        HostError: one of them could not be asked.
        PreconditionFailed: no rail joins two of them.
    """
    told = read(hosts, request(NEEDS))
    if told.unreachable:
        raise next(iter(told.unreachable.values()))
    nodes = [node_facts(taken) for taken in told.snapshots]
    found = ways(plan_fabric(nodes, version_of(nodes)[0]), nodes)
    if not found:
        why, names = "no two of them have a usable RDMA port on one subnet", " ".join(host.name for host in hosts)
        raise PreconditionFailed("there is no rail to measure", why=why, fix=f"shoal fabric {names}")
    return found
