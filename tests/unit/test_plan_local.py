"""The plan of ``shoal up --local``."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import UsageError
from shoal.plan.local import MAX_NODES, LocalSpec, check_nodes, plan_local
from shoal.plan.node import ClusterPlan
from shoal.plan.parallel import on_cpu
from shoal.spec.env import agent_settings, serve_settings
from shoal.spec.registry import ModelEntry
from shoal.state.status import ExecutorKind

EPHEMERAL = 32768
SOCKET_PATH = 107
SESSION = "/session_2026-11-23_05-18-38_004652_1234567/sockets/plasma_store"

SPEC = LocalSpec(
    nodes=2,
    model=ModelEntry("tiny", "org/tiny", "a model", {"dtype": "bfloat16", "enforce-eager": True, "log-stats": False}),
    model_path="/cache/models/tiny",
    parallel=on_cpu(2, 30),
    run_id="0123456789abcdef",
    temp_dir=Path("/tmp/shoal-abcdefgh"),
    state_dir=Path("/home/me/.local/state/shoal/local"),
    cache_dir=Path("/home/me/.cache/shoal"),
    cores=8,
)


def spec(nodes: int) -> LocalSpec:
    return replace(SPEC, nodes=nodes, parallel=on_cpu(nodes, None))


def test_two_nodes_as_a_whole(golden: Callable[[str, object], None]) -> None:
    """Every process of a cluster of two, with its whole environment and arguments, is the one in the golden file."""
    plan = plan_local(SPEC)
    golden(
        "plan_local.json",
        {
            "nodes": [{"name": node.name, "role": node.role, "env": node.env} for node in plan.nodes],
            "supervisor": {"env": plan.engine.env},
            "engine": {
                "env": dict(plan.engine.engine_env),
                "arguments": plan.engine.arguments,
                "endpoint": plan.engine.endpoint,
            },
            "listening": plan.listening(),
        },
    )


def test_without_ray_the_nodes_need_one_port_to_meet() -> None:
    """Without Ray only the head's port is taken, where all ranks meet; every process is told which executor it is."""
    plan = plan_local(replace(SPEC, executor=ExecutorKind.MP))
    assert plan.listening() == [
        ("127.0.0.1", 27000, "torch's store of head"),
        ("127.0.0.1", 8700, "agent of head"),
        ("127.0.0.2", 8700, "agent of worker-1"),
        ("127.0.0.1", 8000, "the API"),
        ("127.0.0.1", 8701, "supervisor"),
    ]
    told = [*(agent_settings(node.env) for node in plan.nodes), serve_settings(plan.engine.env)]
    assert [one.executor for one in told] == ["mp"] * 3
    where = plan.engine.arguments.index("--distributed-executor-backend")
    assert plan.engine.arguments[where + 1] == "mp"


def taken(plan: ClusterPlan) -> list[tuple[str, int]]:
    """Every address and port of a plan, with the ranges that Ray's workers choose from."""
    ranges = [
        (node.address, port) for node in plan.nodes for port in range(node.ports.min_worker, node.ports.max_worker + 1)
    ]
    return [(address, port) for address, port, _ in plan.listening()] + ranges


@pytest.mark.parametrize("nodes", range(1, MAX_NODES + 1))
def test_no_two_processes_want_one_port(nodes: int) -> None:
    """No address and port is planned twice, and no port of Ray twice on the machine: parts of Ray listen on all."""
    plan = plan_local(spec(nodes))
    assert [place for place, count in Counter(taken(plan)).items() if count > 1] == []
    rays = [port for node in plan.nodes for port in node.ports.named(head=node.role == "head").values()]
    ranges = [port for node in plan.nodes for port in range(node.ports.min_worker, node.ports.max_worker + 1)]
    assert [port for port, count in Counter(rays + ranges).items() if count > 1] == []


@pytest.mark.parametrize("nodes", [1, MAX_NODES])
def test_all_ports_are_below_the_kernels_own(nodes: int) -> None:
    """No planned port is one that the kernel gives to outgoing connections."""
    assert max(port for _, port in taken(plan_local(spec(nodes)))) < EPHEMERAL


def test_socket_paths_fit() -> None:
    """The longest socket that Ray makes in the last node's folder has a path the kernel takes."""
    folders = [node.env["SHOAL_RAY_TEMP_DIR"] for node in plan_local(spec(MAX_NODES)).nodes]
    assert [folder for folder in folders if len((folder + SESSION).encode()) > SOCKET_PATH] == []


@given(st.integers(1, MAX_NODES))
def test_agents_and_supervisor_understand_their_environment(nodes: int) -> None:
    """What the plan says of a node is what its agent reads, and the supervisor expects exactly the nodes planned."""
    plan = plan_local(spec(nodes))
    for node in plan.nodes:
        read = agent_settings(node.env)
        assert (read.mode, read.name, read.address, read.num_gpus, read.agent_port, read.port_base) == (
            node.role,
            node.name,
            node.address,
            node.gpus,
            node.agent_port,
            node.ports.node_manager - 1,
        )
        assert read.head == f"{plan.head.address}:{plan.head.ports.gcs}"
    engine = serve_settings(plan.engine.env)
    assert engine.expect == tuple((node.address, node.gpus) for node in plan.nodes)
    assert (engine.serve_port, engine.address) == (plan.engine.serve_port, plan.head.address)


def test_no_secret_is_in_the_plan() -> None:
    """Tokens and keys are named by their files, in every environment and in the arguments."""
    plan = plan_local(SPEC)
    words = [*plan.engine.arguments, *plan.engine.env, *(name for node in plan.nodes for name in node.env)]
    assert sorted({word for word in words if "TOKEN" in word or "KEY" in word.upper()}) == [
        "RAY_AUTH_TOKEN_PATH",
        "SHOAL_API_KEY_FILE",
        "shoal.engine.guard.KeyGuard",
    ]


def test_no_variable_is_set_twice_and_each_has_a_reason() -> None:
    """Each setting of a process has one value and says why."""
    plan = plan_local(SPEC)
    for settings in (*(node.settings for node in plan.nodes), plan.engine.settings):
        names = [setting.name for setting in settings]
        assert len(names) == len(set(names))
        assert [setting.name for setting in settings if not setting.why] == []


def test_a_cluster_of_one_is_a_head() -> None:
    """One node is a head with all cores, and the engine waits for it alone."""
    plan = plan_local(spec(1))
    assert [(node.name, node.role, node.address, node.env["OMP_NUM_THREADS"]) for node in plan.nodes] == [
        ("head", "head", "127.0.0.1", "8")
    ]
    assert plan.engine.env["SHOAL_EXPECT"] == "127.0.0.1:1"


def test_a_rank_has_a_thread_at_least() -> None:
    """More nodes than cores leave each rank one thread."""
    plan = plan_local(replace(spec(3), cores=2))
    assert [node.env["OMP_NUM_THREADS"] for node in plan.nodes] == ["1", "1", "1"]


def test_ports_follow_what_was_asked() -> None:
    """The ports of API, agents, supervisor and Ray are those that were asked for."""
    plan = plan_local(replace(SPEC, api_port=9000, agent_port=9100, serve_port=9101, port_base=20000))
    assert plan.engine.endpoint == "http://127.0.0.1:9000/v1"
    assert [node.agent_url for node in plan.nodes] == ["http://127.0.0.1:9100", "http://127.0.0.2:9100"]
    assert (plan.head.ports.gcs, [node.ports.node_manager for node in plan.nodes]) == (20000, [20001, 20101])
    assert plan.engine.env["SHOAL_SERVE_PORT"] == "9101"


def test_a_cache_size_of_the_models_own_is_kept() -> None:
    """The registry's KV cache size goes before the plan's."""
    options = {"kv-cache-memory-bytes": 1 << 30}
    arguments = plan_local(replace(SPEC, model=replace(SPEC.model, options=options))).engine.arguments
    assert arguments[-2:] == ("--kv-cache-memory-bytes", str(1 << 30))


@pytest.mark.parametrize("count", [0, -1, MAX_NODES + 1])
def test_a_count_that_makes_no_sense_is_refused(count: int) -> None:
    """Fewer than one node and more than sixteen are refused with an example."""
    with pytest.raises(UsageError) as raised:
        check_nodes(count)
    assert str(raised.value) == f"--nodes {count}: expected 1 to 16\nfix: shoal up --local --nodes 2"


def test_more_stages_than_layers_are_refused() -> None:
    """A pipeline has at most as many stages as the model has layers."""
    assert on_cpu(30, 30).world == 30
    with pytest.raises(UsageError) as raised:
        on_cpu(31, 30)
    assert raised.value.what == "--nodes 31 is more than the model's 30 layers"


@pytest.mark.parametrize("ports", [{"api_port": 27000}, {"api_port": 8700}, {"agent_port": 27104, "port_base": 27000}])
def test_one_port_for_two_is_refused(ports: dict[str, int]) -> None:
    """Ports that the user chose so that two processes would share one are refused by name."""
    with pytest.raises(UsageError, match=r"is wanted for .+ and for "):
        plan_local(replace(spec(2), **ports))


def test_what_the_registry_says_wins() -> None:
    """A model's own compilation setting takes the place of the CPU's default."""
    model = replace(SPEC.model, options={"compilation-config": "3"})
    words = plan_local(replace(SPEC, model=model)).engine.arguments
    assert words[words.index("--compilation-config") + 1] == "3"


def test_the_hub_is_asked_only_for_what_is_not_here() -> None:
    """A model folder is served offline, a hub name is not."""
    here, hub = (plan_local(replace(SPEC, model_path=path)) for path in ("/models/x", "org/name"))
    assert [plan.head.env.get("HF_HUB_OFFLINE") for plan in (here, hub)] == ["1", None]
