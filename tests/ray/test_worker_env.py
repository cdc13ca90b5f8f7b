"""``VLLM_RAY_WORKER_ENV_VARS`` for real: two agents with different values, and what a Ray worker on each node has."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shoal.engine.launch import Request, environment, not_carried
from shoal.facts.versions import versions

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

GCS, AGENT_PORT = "127.0.0.1:29300", 29799
WATCHED = (
    "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_DEBUG", "NCCL_IB_TC", "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY", "MY_API_KEY",
)  # fmt: skip
COMMON = {
    "RAY_ADDRESS": GCS,
    "SHOAL_AGENT_PORT": str(AGENT_PORT),
    "SHOAL_NUM_GPUS": "1",
    "SHOAL_NUM_CPUS": "1",
    "SHOAL_RUN_ID": "worker-env",
    # The names below are of devices that this machine does not have.
    "SHOAL_PREFLIGHT_IGNORE": "env.hca-exists,env.interface-exists",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_RAY_WORKER_ENV_VARS": "NCCL_SOCKET_IFNAME,NCCL_IB_HCA,NCCL_DEBUG,NCCL_IB_TC,MY_API_KEY",
}
HEAD = COMMON | {
    "RAY_MODE": "head",
    "VLLM_HOST_IP": "127.0.0.1",
    "SHOAL_PORT_BASE": "29300",
    "NCCL_SOCKET_IFNAME": "=enp1s0",
    "NCCL_IB_HCA": "=mlx5_0",
    "NCCL_DEBUG": "INFO",
    "NCCL_IB_TC": "106",
    "HF_TOKEN": "hf_of_the_head",
    "AWS_SECRET_ACCESS_KEY": "aws_of_the_head",
    "MY_API_KEY": "key_of_the_head",
}
WORKER = COMMON | {
    "RAY_MODE": "worker",
    "VLLM_HOST_IP": "127.0.0.2",
    "SHOAL_PORT_BASE": "29400",
    "NCCL_SOCKET_IFNAME": "=enP2p1s0",
    "NCCL_IB_TC": "96",
    "HF_TOKEN": "hf_of_the_worker",
}
# What vLLM's two executors do at a rank's start, with vLLM's own functions: the new one fills in what the node does not
# have, out of all that the driver has; the old one overwrites, out of a list of names.
DRIVER = """\
import json, os, sys
import ray
from vllm.ray.ray_env import get_env_vars_to_copy
from vllm.v1.executor.ray_env_utils import get_driver_env_vars
from vllm.v1.executor.ray_utils import WORKER_SPECIFIC_ENV_VARS

watched = json.loads(sys.argv[1])
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_gpus=1, max_calls=1)
def report(copied, overwrites):
    inherited = dict(os.environ)
    after = inherited | copied if overwrites else copied | inherited
    seen = {kind: {name: env[name] for name in watched if name in env}
            for kind, env in (("inherited", inherited), ("rank", after))}
    return ray.util.get_node_ip_address(), seen

names = get_env_vars_to_copy(exclude_vars=set(WORKER_SPECIFIC_ENV_VARS))
old = {name: os.environ[name] for name in names if name in os.environ}
new = get_driver_env_vars(worker_specific_vars=set(WORKER_SPECIFIC_ENV_VARS))
out = {}
for kind, copied, overwrites in (("new", new, False), ("old", old, True)):
    out[kind] = dict(ray.get([report.options(resources={f"node:{ip}": 0.001}).remote(copied, overwrites)
                              for ip in ("127.0.0.1", "127.0.0.2")]))
print(json.dumps(out))
"""


@contextmanager
def agent(env: dict[str, str], folder: Path) -> Iterator[None]:
    """An agent of ours, up; ended as a container would end it."""
    name = env["RAY_MODE"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "NCCL_", "HF_"))}
    # Ray binds unix sockets below it: short.
    own = {"SHOAL_STATE_DIR": str(folder / name), "SHOAL_RAY_TEMP_DIR": str(folder / name[0])}
    (folder / name).mkdir()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal", "agent"],
            env=kept | env | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_up(env["VLLM_HOST_IP"], folder / f"{name}.log")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def wait_up(address: str, log: Path) -> None:
    """Until the agent at an address says that it is up."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with opener.open(f"http://{address}:{AGENT_PORT}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{address} did not come up:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """What workers have: by executor (``new``, ``old``), by node's address, ``inherited`` and as a ``rank``."""
    with tempfile.TemporaryDirectory(prefix="shoal-env-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(agent(HEAD, folder))
        stack.enter_context(agent(WORKER, folder))
        config = folder / "vllm-config"
        config.mkdir()
        base = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "NCCL_", "HF_"))}
        request = Request("m", "http://h/v1", (), {"VLLM_CONFIG_ROOT": str(config)})
        env = environment(base | HEAD, request, HEAD["VLLM_HOST_IP"], versions().vllm)
        (config / "ray_non_carry_over_env_vars.json").write_text(not_carried(env))
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps(WATCHED)],
            env=env, capture_output=True, text=True, timeout=180, check=False, cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads(done.stdout.splitlines()[-1])


def test_each_node_gives_its_workers_its_own_values(seen: dict[str, Any]) -> None:
    """Before any engine: what the list names, and what follows from it, as each node's own agent was told it."""
    assert {address: node["inherited"] for address, node in seen["new"].items()} == {
        "127.0.0.1": {
            "NCCL_SOCKET_IFNAME": "=enp1s0",
            "GLOO_SOCKET_IFNAME": "enp1s0",
            "NCCL_IB_HCA": "=mlx5_0",
            "NCCL_DEBUG": "INFO",
            "NCCL_IB_TC": "106",
            "MY_API_KEY": "key_of_the_head",
        },
        "127.0.0.2": {"NCCL_SOCKET_IFNAME": "=enP2p1s0", "GLOO_SOCKET_IFNAME": "enP2p1s0", "NCCL_IB_TC": "96"},
    }


def test_the_engine_adds_what_a_node_lacks_and_nothing_of_another_nodes_own(seen: dict[str, Any]) -> None:
    """A rank on the worker gets the head's NCCL_DEBUG; names of devices and interfaces stay each node's own."""
    assert seen["new"]["127.0.0.2"]["rank"] == {
        "NCCL_SOCKET_IFNAME": "=enP2p1s0",
        "GLOO_SOCKET_IFNAME": "enP2p1s0",
        "NCCL_DEBUG": "INFO",
        "NCCL_IB_TC": "96",
    }


def test_an_executor_that_overwrites_leaves_the_nodes_names_alone(seen: dict[str, Any]) -> None:
    """The older executor takes the head's value for what is the same everywhere, and no device or interface."""
    rank = seen["old"]["127.0.0.2"]["rank"]
    names = {name: rank.get(name) for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_DEBUG")}
    assert names == {
        "NCCL_SOCKET_IFNAME": "=enP2p1s0",
        "GLOO_SOCKET_IFNAME": "enP2p1s0",
        "NCCL_IB_HCA": None,
        "NCCL_DEBUG": "INFO",
    }


def test_secrets_do_not_travel(seen: dict[str, Any]) -> None:
    """A secret that no list names reaches no worker; one that is named stays on the node where it was set."""
    for executor in ("new", "old"):
        for node in seen[executor].values():
            assert not {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY"} & (node["inherited"].keys() | node["rank"].keys())
        assert "MY_API_KEY" not in seen[executor]["127.0.0.2"]["rank"]
        assert seen[executor]["127.0.0.1"]["inherited"]["MY_API_KEY"] == "key_of_the_head"
