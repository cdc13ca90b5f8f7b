"""The plan of ``shoal up --local``: N nodes as processes on 127.0.0.1, 127.0.0.2, ... of this machine."""

from dataclasses import dataclass
from pathlib import Path

from shoal.errors import UsageError
from shoal.plan.engine import CPU_DEFAULTS, arguments
from shoal.plan.node import ClusterPlan, EnginePlan, NodePlan, Setting
from shoal.plan.parallel import Parallel
from shoal.plan.ports import BLOCK, node_ports
from shoal.spec.registry import ModelEntry
from shoal.state.status import ExecutorKind

MAX_NODES = 16
# vLLM would bind the ranks of each node to the same cores: every node takes the machine for its own.
UNBOUND = (Setting("VLLM_CPU_OMP_THREADS_BIND", "nobind", "loopback nodes share the cores; OMP_NUM_THREADS counts"),)


@dataclass(frozen=True)
class LocalSpec:
    """What the user asked for, and the folders it is to live in. ``cores`` are the machine's.

    ``subnet`` are the first three bytes of the nodes' addresses: loopback, but for the lab's namespace hosts.
    """

    nodes: int
    model: ModelEntry
    model_path: str
    parallel: Parallel
    run_id: str
    temp_dir: Path
    state_dir: Path
    cache_dir: Path
    cores: int
    api_port: int = 8000
    agent_port: int = 8700
    serve_port: int = 8701
    port_base: int = 27000
    join_timeout: float = 120.0
    subnet: str = "127.0.0"
    executor: ExecutorKind = ExecutorKind.RAY


def check_nodes(count: int) -> int:
    """The count itself, or UsageError where loopback nodes of that number make no sense."""
    if not 1 <= count <= MAX_NODES:
        raise UsageError(f"--nodes {count}: expected 1 to {MAX_NODES}", fix="shoal up --local --nodes 2")
    return count


def plan_local(spec: LocalSpec) -> ClusterPlan:
    """Every process to be started, with its environment and the reasons.

    Raises:
        UsageError: two of its processes would have to listen on one port.
    """
    nodes = tuple(_node(spec, index) for index in range(check_nodes(spec.nodes)))
    plan = ClusterPlan("local", nodes, _engine(spec, nodes), spec.executor)
    _check_ports(plan)
    return plan


def _check_ports(plan: ClusterPlan) -> None:
    users: dict[tuple[str, int], str] = {}
    for address, port, purpose in plan.listening():
        if other := users.get((address, port)):
            raise UsageError(
                f"port {port} of {address} is wanted for {other} and for {purpose}",
                fix="choose others with --port, --agent-port or --port-base",
            )
        users[address, port] = purpose


def _address(spec: LocalSpec, index: int) -> str:
    return f"{spec.subnet}.{index + 1}"


def _head_address(spec: LocalSpec) -> str:
    return f"{_address(spec, 0)}:{spec.port_base}"


def _node(spec: LocalSpec, index: int) -> NodePlan:
    head = index == 0
    base = spec.port_base + index * BLOCK
    threads = str(max(1, spec.cores // spec.nodes))
    name = "head" if head else f"worker-{index}"
    settings = (
        *_common(spec, index),
        Setting("RAY_MODE", "head" if head else "worker", "the first node runs the GCS"),
        Setting("SHOAL_NODE_NAME", name, "shown in status and logs"),
        Setting("SHOAL_PORT_BASE", str(base), "a block of ports per node: loopback nodes share one port space"),
        Setting("SHOAL_NUM_GPUS", "1", "one rank per node, offered to Ray as a logical GPU"),
        Setting("SHOAL_NUM_CPUS", "1", "Ray prestarts a worker per CPU; ranks ask for none"),
        Setting("SHOAL_RAY_TEMP_DIR", str(spec.temp_dir / str(index + 1)), "short: socket paths end at 107 bytes"),
        *(_page(spec) if head else ()),
        Setting("OMP_NUM_THREADS", threads, f"{spec.cores} cores shared by {spec.nodes} ranks"),
    )
    ports = node_ports(base, spec.port_base)
    return NodePlan(name, "head" if head else "worker", _address(spec, index), 1, ports, spec.agent_port, settings)


def _page(spec: LocalSpec) -> tuple[Setting, ...]:
    return (
        Setting("SHOAL_SERVE_PORT", str(spec.serve_port), "the head's agent shows the engine on its page"),
        Setting("SHOAL_API_KEY_FILE", str(spec.state_dir / "api.key"), "to those who know the key"),
    )


def _common(spec: LocalSpec, index: int) -> tuple[Setting, ...]:
    local = Path(spec.model_path).is_absolute()
    offline = (Setting("HF_HUB_OFFLINE", "1", "the model is a local folder"),) if local else ()
    return (
        Setting("VLLM_HOST_IP", _address(spec, index), "each loopback node has an address of its own"),
        Setting("RAY_ADDRESS", _head_address(spec), "where the nodes meet on the head: Ray's GCS, or torch's store"),
        Setting("SHOAL_EXECUTOR", spec.executor.value, "chosen once for all nodes"),
        Setting("RAY_AUTH_MODE", "token", "Ray refuses whoever has no token"),
        Setting("RAY_AUTH_TOKEN_PATH", str(spec.state_dir / "ray.token"), "by file: never in argv or the environment"),
        Setting("RAY_USAGE_STATS_ENABLED", "0", "nothing is sent anywhere"),
        Setting("SHOAL_AGENT_PORT", str(spec.agent_port), "the agents' endpoint"),
        Setting("SHOAL_RESTARTS", "2", "a laptop's Ray either starts or tells why; nobody waits for ten minutes"),
        Setting("SHOAL_JOIN_TIMEOUT", f"{spec.join_timeout:g}", "how long a join may take"),
        Setting("SHOAL_RUN_ID", spec.run_id, "marks our processes, so that `shoal down` finds all of them"),
        Setting("SHOAL_STATE_DIR", str(spec.state_dir), "logs and secrets of this cluster"),
        Setting("SHOAL_CACHE_DIR", str(spec.cache_dir), "kept over restarts"),
        Setting(
            "TMPDIR", str(spec.temp_dir / "tmp"), "vLLM leaves its sockets there; the folder goes with the cluster"
        ),
        Setting("TORCHINDUCTOR_CACHE_DIR", str(spec.cache_dir / "inductor"), "not left in /tmp"),
        Setting("VLLM_CACHE_ROOT", str(spec.cache_dir / "vllm"), "kept over restarts"),
        Setting("VLLM_NO_USAGE_STATS", "1", "nothing is sent anywhere"),
        *(UNBOUND if spec.executor is ExecutorKind.MP else ()),
        *offline,
    )


def _engine(spec: LocalSpec, nodes: tuple[NodePlan, ...]) -> EnginePlan:
    head = nodes[0].address
    expect = ",".join(f"{node.address}:{node.gpus}" for node in nodes)
    settings = (
        *_common(spec, 0),
        Setting("SHOAL_NODE_NAME", "engine", "shown in status and logs"),
        Setting("SHOAL_SERVE_PORT", str(spec.serve_port), "the supervisor's endpoint"),
        Setting("SHOAL_EXPECT", expect, "the gate waits for exactly these nodes"),
        Setting("SHOAL_ENGINE_PLAN", str(spec.state_dir / "engine.json"), "the engine's arguments"),
        Setting("SHOAL_API_KEY_FILE", str(spec.state_dir / "api.key"), "by file: never in argv"),
        # vLLM renames its processes, which wipes the marker from their environment; the folder marks them too.
        Setting("VLLM_CONFIG_ROOT", str(spec.temp_dir / "vllm-config"), "vLLM's list of variables not to copy"),
    )
    return EnginePlan(
        model=spec.model.key,
        api_host=head,
        api_port=spec.api_port,
        serve_port=spec.serve_port,
        arguments=arguments(
            spec.model_path,
            spec.model.key,
            head,
            spec.api_port,
            spec.parallel,
            CPU_DEFAULTS | dict(spec.model.options),
            spec.executor,
        ),
        engine_env={"VLLM_HOST_IP": head},
        settings=settings,
        reasons=(spec.parallel.why, f"executor {spec.executor.value}: ranks live on every node"),
    )
