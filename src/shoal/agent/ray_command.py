"""``ray start`` for one node: argv and environment, pure."""

import ipaddress
import json
from collections.abc import Mapping

from shoal.plan.ports import NodePorts, node_ports
from shoal.spec import worker_env
from shoal.spec.env import AgentSettings

# GCS checks of a raylet: period and timeout of one check, in seconds. Ray's own are 3 and 10, five times: a silent
# node is noticed after 63 s.
CHECK_PERIOD, CHECK_TIMEOUT = 1.0, 2.0


def ports_of(settings: AgentSettings) -> NodePorts:
    """The ports of this node."""
    return node_ports(settings.port_base, int(settings.head.rpartition(":")[2]))


def is_loopback(address: str) -> bool:
    """Whether the address is one of 127.0.0.0/8 or ::1."""
    return ipaddress.ip_address(address).is_loopback


def start_argv(python: str, settings: AgentSettings, gpus: int, mark: str = "", turn: int = 0) -> tuple[str, ...]:
    """The command that runs this node's Ray in the foreground. ``mark`` is a resource by which this very raylet is
    known in the GCS's table: its address is that of its predecessors, too. ``turn`` is how many there were.
    """
    ports = ports_of(settings).at_turn(turn)
    argv = [
        python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
        f"--node-ip-address={settings.address}",
        f"--temp-dir={settings.temp_dir}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={settings.object_store_mb << 20}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent_listen}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--min-worker-port={ports.min_worker}",
        f"--max-worker-port={ports.max_worker}",
    ]  # fmt: skip
    if mark:
        argv.append(f"--resources={json.dumps({mark: 1})}")
    if settings.num_cpus is not None:
        argv.append(f"--num-cpus={settings.num_cpus}")
    return (*argv, *(_head_argv(ports) if settings.mode == "head" else (f"--address={settings.head}",)))


def _head_argv(ports: NodePorts) -> tuple[str, ...]:
    # No monitor: it is the autoscaler's, and it listens on 0.0.0.0.
    return (
        "--head", f"--port={ports.gcs}", f"--ray-client-server-port={ports.client_server}",
        "--include-dashboard=false", "--no-monitor",
    )  # fmt: skip


def start_env(settings: AgentSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The raylet's environment: what Ray's workers on this node shall inherit, with Ray's own tuning."""
    env = worker_env.for_raylet(inherited)
    # Compiled modules are kept: without them each start of Ray and vLLM compiles hundreds of files again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # Ray would answer SIGTERM with a drain of its own, up to 30 s; the agent has drained by then where it can.
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    env |= _health_checks(settings) if settings.mode == "head" else {}
    if is_loopback(settings.address):
        # Ray would replace 127.0.0.1 by the machine's address on the LAN. A head has a switch, a worker needs a hook.
        if settings.mode == "head":
            env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        else:
            env["RAY_START_HOOK"] = "shoal.agent.ray_hook.keep_loopback"
    return env


def _health_checks(settings: AgentSettings) -> dict[str, str]:
    threshold = max(2, round(settings.lost_after / (CHECK_PERIOD + CHECK_TIMEOUT)))
    return {
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": str(int(CHECK_PERIOD * 1000)),
        "RAY_health_check_timeout_ms": str(int(CHECK_TIMEOUT * 1000)),
        "RAY_health_check_failure_threshold": str(threshold),
    }
