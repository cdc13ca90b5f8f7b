"""The settings that agent and supervisor read from the environment, validated by the table of ``env_table``."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shoal.errors import ConfigError
from shoal.spec.env_table import VARIABLES
from shoal.spec.nearest import did_you_mean, nearest
from shoal.spec.variable import Variable, is_port

S = TypeVar("S", bound="Settings")
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# The rows that agent and supervisor read.
TABLE: tuple[Variable, ...] = tuple(row for row in VARIABLES if row.field)
MAY_BE_NONE = {"num_gpus", "num_cpus", "tensor_parallel", "pipeline_parallel"}


class Settings(BaseModel):
    """Values common to agent and supervisor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    ray_address: str
    name: str
    agent_port: Port
    join_timeout: Seconds
    restarts: Count
    restart_window: Seconds
    run_id: str
    log: Literal["story", "json"]
    executor: Literal["auto", "ray", "mp"] = "auto"
    state_dir: str = ""
    cache_dir: str = ""
    serve_port: Port = 8701
    api_key_file: str = ""

    @property
    def head(self) -> str:
        """The GCS address, ``ADDRESS:PORT``."""
        return self.ray_address or f"{self.address}:6379"

    @field_validator("address")
    @classmethod
    def _is_ip(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value

    @field_validator("ray_address")
    @classmethod
    def _has_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and "/" not in host and is_port(port)):
            raise ValueError("expected ADDRESS:PORT")
        return value


class AgentSettings(Settings):
    """What the agent of one node is told."""

    mode: Literal["head", "worker"]
    num_gpus: Count | None
    num_cpus: Count | None
    port_base: Annotated[int, Field(ge=1024, le=65436)]  # a hundred ports from here on
    temp_dir: str
    object_store_mb: Annotated[int, Field(ge=75)]  # Ray refuses less
    lost_after: Seconds
    share_gpus: Annotated[int, Field(ge=0, le=1)] = 0
    preflight_ignore: str = ""


class ServeSettings(Settings):
    """What the engine supervisor is told."""

    lost_after: Seconds = 30.0
    wedged_after: Seconds = 60.0
    drain_timeout: Seconds = 60.0
    expect: tuple[tuple[str, int], ...]
    engine_plan: str
    model_name: str = ""
    models_file: str = ""
    api_host: str = ""
    api_port: Port = 8000
    tensor_parallel: Size | None = None
    pipeline_parallel: Size | None = None
    num_gpus: Count | None = None

    @field_validator("api_host")
    @classmethod
    def _is_ip_or_empty(cls, value: str) -> str:
        return str(ipaddress.ip_address(value)) if value else value

    @field_validator("expect", mode="before")
    @classmethod
    def _nodes(cls, value: str) -> tuple[tuple[str, int], ...]:
        pairs = [item.strip().partition(":") for item in value.split(",") if item.strip()]
        nodes = tuple((str(ipaddress.ip_address(address)), int(gpus or "1")) for address, _, gpus in pairs)
        if any(gpus < 0 for _, gpus in nodes):
            raise ValueError("a node cannot have fewer than 0 GPUs")
        if len({address for address, _ in nodes}) < len(nodes):
            raise ValueError("a node is named twice")
        return nodes


def _values(env: Mapping[str, str], fields: set[str]) -> dict[str, Any]:
    """Field values out of the environment; an empty variable counts as absent."""
    out: dict[str, Any] = {}
    for row in TABLE:
        if row.field in fields:
            raw = env.get(row.name, "").strip() or row.default
            out[row.field] = None if raw == "" and row.field in MAY_BE_NONE else raw
    return out


def _unknown(env: Mapping[str, str]) -> list[str]:
    known = {row.name for row in TABLE}
    others = {row.name for row in VARIABLES}  # one .env serves the container as well
    return [
        f"{name} is not a setting of shoal; {did_you_mean(name, known)}"
        for name in sorted(env)
        # SHOAL_TEST_* speaks to shoal's own tests, whose environment everything they start inherits.
        if name.startswith("SHOAL_") and name not in others and not name.startswith("SHOAL_TEST_")
    ]


def _problem(error: Any, env: Mapping[str, str]) -> str:
    field = str(error["loc"][0])
    row = next(row for row in TABLE if row.field == field)
    if env.get(row.name, "").strip() == "" and row.default is None:
        return f"{row.name} is not set: {row.meaning}"
    value = env.get(row.name, row.default) or ""
    near = nearest(value.strip().lower(), row.choices, count=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"{row.name}={value!r}: {error['msg']}; expected {row.meaning}{hint}"


def _read(kind: type[S], env: Mapping[str, str]) -> S:
    problems = _unknown(env)
    try:
        settings = kind.model_validate(_values(env, set(kind.model_fields)))
    except ValidationError as error:
        problems = [_problem(item, env) for item in error.errors()] + problems
    if problems:
        raise ConfigError("; ".join(problems), fix="correct the environment (.env) and start again")
    return settings


def agent_settings(env: Mapping[str, str]) -> AgentSettings:
    """The agent's settings, or ConfigError that names every wrong variable."""
    settings = _read(AgentSettings, env)
    if settings.mode == "worker" and not settings.ray_address:
        raise ConfigError("RAY_ADDRESS is not set: a worker needs the head's ADDRESS:PORT", fix="set RAY_ADDRESS")
    if settings.mode == "worker" and settings.head.rpartition(":")[0].strip("[]") == settings.address:
        what = f"RAY_ADDRESS={settings.ray_address!r}: it points at this worker itself"
        raise ConfigError(what, fix="set RAY_ADDRESS to the head's ADDRESS:PORT")
    if env.get("RAY_AUTH_TOKEN"):
        why = "a token in the environment is inherited by every task that Ray runs"
        raise ConfigError("RAY_AUTH_TOKEN is set", why=why, fix="put it into a file and set RAY_AUTH_TOKEN_PATH")
    return settings


def serve_settings(env: Mapping[str, str]) -> ServeSettings:
    """The supervisor's settings, or ConfigError that names every wrong variable."""
    return _read(ServeSettings, env)
