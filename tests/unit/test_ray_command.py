"""``ray start``: argv and environment."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.agent.ray_command import is_loopback, ports_of, start_argv, start_env
from shoal.log import is_secret
from shoal.plan.ports import NodePorts
from shoal.spec.env import AgentSettings, agent_settings


def settings(mode: str, address: str = "192.168.100.2", head: str = "192.168.100.1:6379", **more: str) -> AgentSettings:
    names = {f"SHOAL_{name.upper()}": value for name, value in more.items()}
    return agent_settings({"RAY_MODE": mode, "VLLM_HOST_IP": address, "RAY_ADDRESS": head, **names})


HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "10",
}
NO_DRAIN = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}


def test_the_command_of_a_worker() -> None:
    """A worker joins the head it is told, with every port pinned in its own block."""
    worker = settings("worker", num_cpus="4", port_base="28000", object_store_mb="100", ray_temp_dir="/run/ray")
    assert start_argv("/venv/python", worker, 2, "shoal-1") == (
        "/venv/python",
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=192.168.100.2",
        "--temp-dir=/run/ray",
        "--num-gpus=2",
        "--object-store-memory=104857600",
        "--node-manager-port=28001",
        "--object-manager-port=28002",
        "--runtime-env-agent-port=28003",
        "--dashboard-agent-listen-port=28004",
        "--dashboard-agent-grpc-port=28005",
        "--metrics-export-port=28006",
        "--min-worker-port=28020",
        "--max-worker-port=28099",
        '--resources={"shoal-1": 1}',
        "--num-cpus=4",
        "--address=192.168.100.1:6379",
    )


def test_the_command_of_a_head() -> None:
    """A head runs the GCS at the port that RAY_ADDRESS says, without dashboard and monitor; Ray counts the CPUs."""
    assert start_argv("python", settings("head", "192.168.100.1"), 1, "shoal-1") == (
        "python",
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=192.168.100.1",
        "--temp-dir=/tmp/ray",
        "--num-gpus=1",
        "--object-store-memory=209715200",
        "--node-manager-port=27001",
        "--object-manager-port=27002",
        "--runtime-env-agent-port=27003",
        "--dashboard-agent-listen-port=27004",
        "--dashboard-agent-grpc-port=27005",
        "--metrics-export-port=27006",
        "--min-worker-port=27020",
        "--max-worker-port=27099",
        '--resources={"shoal-1": 1}',
        "--head",
        "--port=6379",
        "--ray-client-server-port=27007",
        "--include-dashboard=false",
        "--no-monitor",
    )


def test_the_ports_of_a_node() -> None:
    """All ports lie in the node's block but the GCS, which is where RAY_ADDRESS says."""
    assert ports_of(settings("worker", port_base="30000")) == NodePorts(
        gcs=6379,
        node_manager=30001,
        object_manager=30002,
        runtime_env_agent=30003,
        dashboard_agent_listen=30004,
        dashboard_agent_grpc=30005,
        metrics_export=30006,
        client_server=30007,
        min_worker=30020,
        max_worker=30099,
    )


def test_each_start_of_a_worker_s_raylet_has_another_port_than_the_one_before() -> None:
    """The block's spare ports are taken in turn; nothing else moves, and none is a worker process's."""
    first = ports_of(settings("worker"))
    seen = [first.at_turn(turn).node_manager for turn in range(14)]
    assert seen == [27001, *range(27008, 27020), 27001]
    assert replace(first.at_turn(5), node_manager=27001) == first
    assert "--node-manager-port=27012" in start_argv("python", settings("worker"), 1, "", 5)


def test_the_head_alone_has_a_gcs_and_a_client_server() -> None:
    """The named ports of a head are those of a worker, with GCS and client server."""
    ports = ports_of(settings("head"))
    assert ports.named(head=True) == {"Ray GCS": 6379, "Ray client server": 27007} | ports.named(head=False)
    assert ports.named(head=False) == {
        "Ray node manager": 27001,
        "Ray object manager": 27002,
        "Ray runtime-env agent": 27003,
        "Ray dashboard agent": 27004,
        "Ray dashboard agent gRPC": 27005,
        "Ray metrics": 27006,
    }


@pytest.mark.parametrize(
    ("mode", "address", "added"),
    [
        ("head", "127.0.0.1", NO_DRAIN | HEALTH | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}),
        ("worker", "127.0.0.2", NO_DRAIN | {"RAY_START_HOOK": "shoal.agent.ray_hook.keep_loopback"}),
        ("head", "192.168.100.1", NO_DRAIN | HEALTH),
        ("worker", "192.168.100.2", NO_DRAIN),
    ],
)
def test_what_is_added_to_the_environment(mode: str, address: str, added: dict[str, str]) -> None:
    """Ray's tuning is added; on loopback a head gets the switch and a worker the hook, on a fabric neither."""
    assert start_env(settings(mode, address), {"PATH": "/bin"}) == {"PATH": "/bin"} | added


def test_the_hook_is_a_function_that_exists() -> None:
    """The hook's name leads to a function."""
    from shoal.agent import ray_hook

    module, _, name = start_env(settings("worker", "127.0.0.2"), {})["RAY_START_HOOK"].rpartition(".")
    assert (module, callable(getattr(ray_hook, name))) == (ray_hook.__name__, True)


def test_secrets_and_empty_variables_stay_out() -> None:
    """Neither a secret nor an empty variable reaches Ray; paths of secrets and the encodings of models do."""
    kept = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/s/ray.token",
        "TOKENIZERS_PARALLELISM": "false",
        "TIKTOKEN_ENCODINGS_BASE": "/encodings",
        "NCCL_IB_HCA": "mlx5_0",
    }
    dropped = {
        "HUGGING_FACE_HUB_TOKEN": "hf_x",
        "VLLM_API_KEY": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert start_env(settings("worker"), kept | dropped) == kept | NO_DRAIN


NAMES = st.lists(st.sampled_from(["HF", "TOKEN", "API", "KEY", "SECRET", "PATH", "MAX", "RAY", "_"]), min_size=1)


@given(st.dictionaries(NAMES.map("_".join), st.sampled_from(["", "value"])), st.sampled_from(["head", "worker"]))
def test_no_secret_and_nothing_empty_is_ever_passed_on(inherited: dict[str, str], mode: str) -> None:
    """Whatever is inherited, no variable of the result is empty or has a secret's name, and all others are kept."""
    env = start_env(settings(mode), inherited)
    assert [name for name, value in env.items() if not value or is_secret(name)] == []
    assert {name: value for name, value in inherited.items() if value and not is_secret(name)}.items() <= env.items()


def test_the_environment_that_was_given_is_left_alone() -> None:
    """The caller's environment is not changed."""
    inherited = {"HF_TOKEN": "x", "EMPTY": ""}
    start_env(settings("head"), inherited)
    assert inherited == {"HF_TOKEN": "x", "EMPTY": ""}


@pytest.mark.parametrize(
    ("lost_after", "threshold"), [("30", "10"), ("60", "20"), ("31", "10"), ("6", "2"), ("1", "2")]
)
def test_ray_gives_a_silent_node_up_after_the_time_asked_for(lost_after: str, threshold: str) -> None:
    """The number of failed checks follows SHOAL_LOST_AFTER, three seconds each, and one is never enough."""
    env = start_env(settings("head", lost_after=lost_after), {})
    assert env["RAY_health_check_failure_threshold"] == threshold


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("192.168.100.1", False), ("10.127.0.1", False)],
)
def test_loopback_addresses(address: str, loopback: bool) -> None:
    """All of 127.0.0.0/8 and ::1 are loopback, nothing else is."""
    assert is_loopback(address) is loopback
