"""The plan of a lab: what each host's services are, with which environment. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.engine.launch import VLLM_SERVER, Request
from shoal.errors import UsageError
from shoal.lab import namespace
from shoal.lab.clock import FILE as CLOCK
from shoal.lab.init import Service
from shoal.lab.record import EngineKind, HostRecord, Kind
from shoal.lab.sim.answers import MODEL
from shoal.plan.local import LocalSpec
from shoal.plan.node import ClusterPlan
from shoal.plan.parallel import on_cpu
from shoal.spec.registry import ModelEntry

SIMULATED = ModelEntry(
    key=MODEL, model=MODEL, description="no model: the lab's simulated engine", options={}, origin="built-in"
)
SIM_SERVER = "shoal.lab.sim.server"
MAX_HOSTS = 16
NAMESPACE_GCS, NAMESPACE_API = 6379, 8000


@dataclass(frozen=True)
class Wish:
    """What the user asked of ``shoal lab up``. ``settings`` are further variables of agents and supervisor."""

    hosts: int
    kind: Kind
    engine: EngineKind
    subnet: str = "192.168.100"
    port_base: int = 27000
    api_port: int = 8000
    agent_port: int = 8700
    load_seconds: float = 0.2
    clock: bool = False
    settings: Mapping[str, str] | None = None


def check_hosts(count: int) -> int:
    """The count itself, or UsageError where a lab of that size makes no sense."""
    if not 1 <= count <= MAX_HOSTS:
        raise UsageError(f"-n {count}: expected 1 to {MAX_HOSTS}", fix="shoal lab up -n 2")
    return count


@dataclass(frozen=True)
class Places:
    """Where a lab is: state, the hosts' folders, and what is kept for the next one."""

    state: Path
    hosts: Path
    cache: Path

    @property
    def logs(self) -> Path:
        """What the services print."""
        return self.state / "logs"


def local_spec(wish: Wish, places: Places, model: ModelEntry, model_path: str, run_id: str) -> LocalSpec:
    """The lab as the plan for loopback nodes sees it; namespace hosts have a subnet of their own."""
    return LocalSpec(
        nodes=check_hosts(wish.hosts),
        model=model,
        model_path=model_path,
        parallel=on_cpu(wish.hosts, None),
        run_id=run_id,
        temp_dir=places.hosts,
        state_dir=places.state,
        cache_dir=places.cache,
        cores=wish.hosts,
        api_port=wish.api_port,
        agent_port=wish.agent_port,
        serve_port=wish.agent_port + 1,
        port_base=wish.port_base,
        subnet=wish.subnet if wish.kind == "namespace" else "127.0.0",
    )


def hosts_of(plan: ClusterPlan, kind: Kind, places: Places) -> tuple[HostRecord, ...]:
    """A host for each node of the plan: n1 is the head."""
    return tuple(
        HostRecord(
            name=f"n{number}",
            number=number,
            role=node.role,
            address=node.address,
            kind=kind,
            folder=str(places.hosts / f"n{number}"),
        )
        for number, node in enumerate(plan.nodes, 1)
    )


def request_of(plan: ClusterPlan, wish: Wish) -> Request:
    """What the supervisor is to start."""
    engine = plan.engine
    request = Request(engine.model, engine.endpoint, engine.arguments, engine.engine_env)
    if wish.engine == "vllm":
        return request
    load = ("--sim-load-seconds", f"{wish.load_seconds:g}")
    return replace(request, arguments=(*request.arguments, *load), server=SIM_SERVER)


def server_name(request: Request) -> str:
    """How the engine is called where it is shown."""
    return "vLLM" if request.server == VLLM_SERVER else "simulated"


def services(
    plan: ClusterPlan,
    host: HostRecord,
    logs: Path,
    python: str,
    inherited: Mapping[str, str],
    wish: Wish,
) -> tuple[Service, ...]:
    """The services of a host: the agent, and the supervisor on the head."""
    node = plan.nodes[host.number - 1]
    base = {**inherited, **own(host)}
    extra = wish.settings or {}
    clock = ("shoal.lab.clock", f"{host.folder}/{CLOCK}") if wish.clock else ("shoal",)
    run = (python, "-m", *clock)
    found = [_service(host, "agent", logs, run, {**base, **node.env, **own(host), **extra})]
    if host.role == "head":
        found.append(_service(host, "serve", logs, run, {**base, **plan.engine.env, **own(host), **extra}))
    return tuple(found)


def _service(host: HostRecord, word: str, logs: Path, run: tuple[str, ...], env: Mapping[str, str]) -> Service:
    # Ray's driver looks for its raylet among the processes it can see, so the supervisor sees the whole host.
    wrap = namespace.CONTAINER if host.kind == "namespace" and word == "agent" else ()
    clean = {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    name = host.name if word == "agent" else "engine"
    argv = (*wrap, *run, word)
    return Service(word, argv, {**clean, "SHOAL_NODE_NAME": name}, str(logs / f"{name}.log"))


def own(host: HostRecord) -> dict[str, str]:
    """What a host of the lab has for itself: folders on its own disk, and Ray's usual folder in a namespace."""
    disk = host.disk
    return {
        "SHOAL_STATE_DIR": str(disk / "state"),
        "SHOAL_RAY_TEMP_DIR": str(namespace.RAY if host.kind == "namespace" else disk / "ray"),
        "TMPDIR": str(disk / "tmp"),
        "VLLM_CONFIG_ROOT": str(disk / "vllm-config"),
        # Faults come often in a lab; a breaker for real life would end every rehearsal.
        "SHOAL_RESTARTS": "1000",
    }
