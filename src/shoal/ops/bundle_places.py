"""What a support archive is made of: the local cluster's folders, or those of a cluster file's hosts."""

import base64
from collections.abc import Mapping
from pathlib import Path

from shoal.errors import NotRunning
from shoal.host import collect
from shoal.host.local import LocalHost
from shoal.ops import local
from shoal.ops.bundle import EACH, ROOM, SECRETS, Cluster, Place
from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.snapshot import snapshot
from shoal.plan.fleet import CURRENT, LOGS, PLAN, STATE, FleetPlan, root_of
from shoal.spec import cluster
from shoal.spec.environ import state_dir
from shoal.spec.redact import of_environment
from shoal.state.status import ClusterStatus

# Lines of a container's log; Docker's log driver keeps 250 MB.
LINES = "20000"
RAY_LOGS = "session_latest/logs"


def of_this_machine(env: Mapping[str, str]) -> Cluster:
    """The local cluster: its state folder, and Ray's own logs while it is up.

    Raises:
        NotRunning: none was up here yet.
    """
    folder = local.cluster_dir(env)
    if not folder.is_dir():
        raise NotRunning("there is nothing to gather: no cluster was up here yet", fix="shoal up --local")
    run = local.running(env)
    ray = {f"ray/{n}": f"{run.temp_dir}/{n}/{RAY_LOGS}" for n in range(1, len(run.nodes) + 1)} if run else {}
    place = Place("localhost", LocalHost(), {"": str(folder), **ray})
    status = _said(snapshot(run))
    return Cluster("local", [place], {"status.json": status}, list(of_environment(env)))


def of_file(file: Path, env: Mapping[str, str]) -> Cluster:
    """The hosts of a cluster file, and what the operator keeps of it.

    Raises:
        ConfigError: the file is wrong.
    """
    spec = cluster.load(file)
    hosts = open_hosts(spec)
    desk = state_dir(dict(env)) / "clusters" / spec.cluster
    plan = _plan(desk / PLAN)
    temps = {node.name: node.temp for node in plan.nodes} if plan else {}
    places = [
        Place(
            host.name,
            hosts[host.name],
            _folders(spec.cluster, temps.get(host.name, "")),
            _containers(host.role) if spec.runtime == "compose" else {},
        )
        for host in spec.hosts
    ]
    wanted = {"folders": {"": str(desk)}, "commands": {}, "secrets": list(SECRETS), "most": EACH, "room": ROOM}
    kept = collect.collect(wanted)
    files = {f"plan/{name}": base64.b64decode(data) for name, data in kept["files"].items()}
    files[f"plan/{file.name}"] = file.read_bytes()
    secrets = [*kept["secrets"], *of_environment(env), *key_of(spec.serving.api_key, env)]
    return Cluster(spec.cluster, places, files, secrets)


def _said(status: ClusterStatus) -> bytes:
    return (status.model_dump_json(indent=2) + "\n").encode()


def _plan(path: Path) -> FleetPlan | None:
    """The plan that was carried out last from here; None where there is none that can be read."""
    try:
        return FleetPlan.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _folders(name: str, temp: str) -> dict[str, str]:
    """By the name that they get: the release, the logs, the state, Ray's own logs."""
    root = root_of("~", name)
    found = {"release": f"{root}/{CURRENT}", LOGS: f"{root}/{LOGS}", STATE: f"{root}/{STATE}"}
    return found | ({"ray": f"{temp}/ray/{RAY_LOGS}"} if temp else {})


def _containers(role: str) -> dict[str, tuple[str, ...]]:
    names = (f"ray-{role}", "vllm") if role == "head" else (f"ray-{role}",)
    logs = {f"logs/{name}.log": ("docker", "logs", "--timestamps", "--tail", LINES, name) for name in names}
    inspect = ("docker", "inspect", *names)
    return {**logs, "docker/ps.txt": ("docker", "ps", "-a"), "docker/inspect.json": inspect}


def key_of(source: str, env: Mapping[str, str]) -> list[str]:
    """The API key, where the file says that it comes from somewhere else."""
    kind, _, name = source.partition(":")
    if kind == "env":
        return [env.get(name, "")]
    text = LocalHost().read(str(Path(name).expanduser())) if kind == "file" else None
    return [text] if text else []
