"""The environment as interface: one table of variables, and the settings that agent and supervisor read from it.

The table yields validation here; the rendered ``.env`` files and the reference page are made from it as well.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shoal.errors import ConfigError
from shoal.spec.nearest import did_you_mean

S = TypeVar("S", bound="Settings")
Reader = Literal["agent", "serve", "both"]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Variable:
    """One row of the table. ``field`` is the settings' attribute; a default of None means required."""

    name: str
    field: str
    default: str | None
    reader: Reader
    meaning: str


TABLE: tuple[Variable, ...] = (
    Variable("RAY_MODE", "mode", None, "agent", "`head` or `worker`"),
    Variable("VLLM_HOST_IP", "address", None, "both", "this node's fabric address; must be local to this machine"),
    Variable("RAY_ADDRESS", "ray_address", "", "both", "the head as `ADDRESS:PORT`; on the head: derived, port 6379"),
    Variable("SHOAL_NODE_NAME", "name", "", "both", "name shown for this node; default: the host name"),
    Variable("SHOAL_NUM_GPUS", "num_gpus", "", "agent", "what `ray start --num-gpus` offers; default: the GPUs seen"),
    Variable("SHOAL_NUM_CPUS", "num_cpus", "", "agent", "what `ray start --num-cpus` offers; default: Ray's count"),
    Variable("SHOAL_PORT_BASE", "port_base", "27000", "agent", "first of the 100 ports that this node's Ray uses"),
    Variable("SHOAL_AGENT_PORT", "agent_port", "8700", "both", "port of the agent's endpoint on every node"),
    Variable("SHOAL_SERVE_PORT", "serve_port", "8701", "serve", "port of the supervisor's endpoint"),
    Variable(
        "SHOAL_RAY_TEMP_DIR", "temp_dir", "/tmp/ray", "agent", "Ray's folder, short: socket paths end at 107 bytes"
    ),
    Variable("SHOAL_OBJECT_STORE_MB", "object_store_mb", "200", "agent", "cap of Ray's object store, MiB"),
    Variable("SHOAL_JOIN_TIMEOUT", "join_timeout", "120", "both", "seconds until a join or the gate is given up"),
    Variable("SHOAL_LOST_AFTER", "lost_after", "30", "agent", "seconds of silence until a node counts as lost"),
    Variable("SHOAL_RESTARTS", "restarts", "5", "both", "restarts within ten minutes before the breaker opens"),
    Variable("SHOAL_EXPECT", "expect", "", "serve", "the nodes the gate waits for: `ADDRESS[:GPUS],...`"),
    Variable("SHOAL_ENGINE_PLAN", "engine_plan", "", "serve", "JSON file with the engine's arguments and environment"),
    Variable("SHOAL_API_KEY_FILE", "api_key_file", "", "serve", "file with the API key, mode 0600"),
    Variable("SHOAL_STATE_DIR", "state_dir", "", "both", "where shoal keeps its state and logs"),
    Variable("SHOAL_CACHE_DIR", "cache_dir", "", "both", "where shoal keeps converted models and compile caches"),
    Variable("SHOAL_RUN_ID", "run_id", "", "both", "marks the processes of one cluster"),
    Variable("SHOAL_LOG", "log", "story", "both", "`story` or `json`"),
)


class Settings(BaseModel):
    """Values common to agent and supervisor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    ray_address: str
    name: str
    agent_port: Port
    join_timeout: Seconds
    restarts: Count
    run_id: str
    log: Literal["story", "json"]
    state_dir: str = ""
    cache_dir: str = ""

    @field_validator("address")
    @classmethod
    def _is_ip(cls, value: str) -> str:
        ipaddress.ip_address(value)
        return value

    @field_validator("ray_address")
    @classmethod
    def _has_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isdigit() and 0 < int(port) < 65536):
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

    @property
    def head(self) -> str:
        """The GCS address, ``ADDRESS:PORT``."""
        return self.ray_address or f"{self.address}:6379"


class ServeSettings(Settings):
    """What the engine supervisor is told."""

    serve_port: Port
    expect: tuple[tuple[str, int], ...]
    engine_plan: str
    api_key_file: str

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
            out[row.field] = None if raw == "" and row.field in {"num_gpus", "num_cpus"} else raw
    return out


def _unknown(env: Mapping[str, str]) -> list[str]:
    known = {row.name for row in TABLE}
    return [
        f"{name} is not a setting of shoal; {did_you_mean(name, known)}"
        for name in sorted(env)
        # SHOAL_TEST_* speaks to shoal's own tests, whose environment everything they start inherits.
        if name.startswith("SHOAL_") and name not in known and not name.startswith("SHOAL_TEST_")
    ]


def _problem(error: Any, env: Mapping[str, str]) -> str:
    field = str(error["loc"][0])
    row = next(row for row in TABLE if row.field == field)
    if env.get(row.name, "").strip() == "" and row.default is None:
        return f"{row.name} is not set: {row.meaning}"
    return f"{row.name}={env.get(row.name, row.default)!r}: {error['msg']}; expected {row.meaning}"


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
    if env.get("RAY_AUTH_TOKEN"):
        why = "a token in the environment is inherited by every task that Ray runs"
        raise ConfigError("RAY_AUTH_TOKEN is set", why=why, fix="put it into a file and set RAY_AUTH_TOKEN_PATH")
    return settings


def serve_settings(env: Mapping[str, str]) -> ServeSettings:
    """The supervisor's settings, or ConfigError that names every wrong variable."""
    return _read(ServeSettings, env)
