"""One node of the plan: its environment with reasons, its programs with their commands. Pure."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoal.plan.container import STATE as INSIDE
from shoal.plan.fabric.types import FabricSetting
from shoal.plan.fleet import (
    API_KEY,
    COMPOSE,
    CURRENT,
    ENV,
    GENERATED,
    LOGS,
    MODELS,
    PYZ,
    RAY_TOKEN,
    SERVICES,
    STATE,
    FleetPlan,
    NodeDeployment,
    PlannedFile,
    PlannedPort,
    PlannedSecret,
    UnitName,
    UnitPlan,
    digest_of,
)
from shoal.plan.node import Setting
from shoal.plan.parallel import Parallel
from shoal.plan.ports import node_ports
from shoal.spec.cluster import ClusterSpec, HostSpec
from shoal.spec.dotenv import parse
from shoal.spec.env_table import BY_NAME

GCS_PORT = 6379
GRACE = 60  # seconds for a container to drain and end
PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@^%-]*")


@dataclass(frozen=True)
class Draft:
    """A node before its commands: what was decided of it so far."""

    host: HostSpec
    root: str
    address: str
    address_why: str
    gpus: int
    gpus_why: str
    files: tuple[PlannedFile, ...]
    origin: str
    fabric: tuple[FabricSetting, ...]
    compose: tuple[str, ...]
    api_host: str
    settings: tuple[Setting, ...] = ()

    @property
    def ssh(self) -> str:
        """How ssh finds it."""
        return self.host.ssh or self.host.name

    @property
    def temp(self) -> str:
        """Its folder for sockets and sessions: short, since a socket's path ends at 107 bytes."""
        return f"/tmp/shoal-{digest_of(self.root, self.host.name)[:8]}"

    def port(self, name: str, default: int) -> int:
        """A port of its environment."""
        return int(self.host.env.get(name) or default)


def environment(spec: ClusterSpec, draft: Draft, drafts: Sequence[Draft], parallel: Parallel) -> Draft:
    """The node with its whole environment, and the ``.env`` that holds it."""
    head = next(one for one in drafts if one.host.role == "head")
    planned = {
        setting.name: setting
        for setting in (
            *_node(draft, head),
            *(_process(spec, draft) if spec.runtime == "process" else _containers(spec)),
            *_fabric(spec, draft),
            *(_engine(spec, draft, drafts, parallel) if draft is head else ()),
        )
    }
    for name, value in draft.host.env.items():
        planned[name] = Setting(name, value, f"{draft.origin}: env of {draft.host.name}")
    settings = tuple(setting for setting in planned.values() if setting.value)
    file = PlannedFile(
        path=ENV, mode=0o600, text=_env_text(settings), why="the node's environment; no secret stands in it"
    )
    return replace(draft, settings=settings, files=(*draft.files, file))


def _env_text(settings: Sequence[Setting]) -> str:
    """As Docker Compose reads it: each variable below its reason."""
    lines = []
    for item in settings:
        value = item.value if PLAIN.fullmatch(item.value) else "'" + item.value.replace("'", r"\'") + "'"
        lines += [f"# {' '.join(item.why.split())}", f"{item.name}={value}"]
    return "\n".join(lines) + "\n"


def _node(draft: Draft, head: Draft) -> Iterator[Setting]:
    role = draft.host.role
    yield Setting("RAY_MODE", role, "the head runs Ray's GCS and the engine's supervisor")
    yield Setting("SHOAL_NODE_NAME", draft.host.name, f"its name in {draft.origin}")
    yield Setting("VLLM_HOST_IP", draft.address, draft.address_why)
    shown = f"[{head.address}]" if ":" in head.address else head.address
    yield Setting("RAY_ADDRESS", f"{shown}:{GCS_PORT}", f"the GCS, on {head.host.name}")
    yield Setting("SHOAL_NUM_GPUS", str(draft.gpus), draft.gpus_why)
    yield Setting("RAY_AUTH_MODE", "token", "Ray refuses whoever has no token (Ray 2.52 or newer)")


def _containers(spec: ClusterSpec) -> Iterator[Setting]:
    yield Setting("RAY_AUTH_TOKEN_PATH", f"{INSIDE}/{RAY_TOKEN}", "by file: never in argv or the environment")
    yield Setting("SHOAL_IMAGE", spec.image, "image")
    yield Setting("MODEL_CACHE", spec.model_cache or "", "model-cache")


def _process(spec: ClusterSpec, draft: Draft) -> Iterator[Setting]:
    root, cache = draft.root, f"{draft.root}/cache"
    yield Setting("RAY_AUTH_TOKEN_PATH", f"{root}/{STATE}/{RAY_TOKEN}", "by file: never in argv or the environment")
    yield Setting("RAY_USAGE_STATS_ENABLED", "0", "nothing is sent anywhere")
    yield Setting("VLLM_NO_USAGE_STATS", "1", "nothing is sent anywhere")
    yield Setting("SHOAL_STATE_DIR", f"{root}/{STATE}", "journals and secrets of this cluster")
    yield Setting("SHOAL_CACHE_DIR", cache, "kept over restarts, gone with `down --purge`")
    yield Setting("SHOAL_RAY_TEMP_DIR", f"{draft.temp}/ray", "short: socket paths end at 107 bytes")
    yield Setting("TMPDIR", f"{draft.temp}/tmp", "vLLM leaves its sockets there")
    yield Setting("VLLM_CONFIG_ROOT", f"{draft.temp}/vllm-config", "vLLM's list of variables not to copy")
    yield Setting("VLLM_CACHE_ROOT", f"{cache}/vllm", "compiled graphs, kept over restarts")
    yield Setting("TORCHINDUCTOR_CACHE_DIR", f"{cache}/inductor", "compiled kernels, kept over restarts")
    yield Setting("HF_HOME", spec.model_cache or f"{root}/models", "model-cache" if spec.model_cache else "models")


def _fabric(spec: ClusterSpec, draft: Draft) -> Iterator[Setting]:
    for setting in draft.fabric:
        yield Setting(setting.name, setting.value, setting.reason)
    own = spec.fabric
    asked = {
        "tc": ("NCCL_IB_TC", own.tc),
        "sl": ("NCCL_IB_SL", own.sl),
        "timeout": ("NCCL_IB_TIMEOUT", own.timeout),
        "retry": ("NCCL_IB_RETRY_CNT", own.retry),
        "gdr": ("NCCL_NET_GDR_LEVEL", None if own.gdr == "auto" else own.gdr),
        "kind": ("NCCL_IB_DISABLE", 1 if own.kind == "tcp" else None),
    }
    for key, (name, value) in asked.items():
        if value is not None:
            yield Setting(name, str(value), f"{draft.origin}: fabric.{key}")


def _engine(spec: ClusterSpec, draft: Draft, drafts: Sequence[Draft], parallel: Parallel) -> Iterator[Setting]:
    names = [f"{one.address}:{one.gpus}" if ":" not in one.address else one.address for one in drafts]
    yield Setting("SHOAL_EXPECT", ",".join(names), "the gate waits for exactly these nodes")
    yield Setting("MODEL_NAME", spec.model.name, f"{draft.origin}: model")
    yield Setting("SHOAL_TENSOR_PARALLEL", str(parallel.tensor), parallel.why)
    yield Setting("SHOAL_PIPELINE_PARALLEL", str(parallel.pipeline), parallel.why)
    yield Setting("SHOAL_API_HOST", draft.api_host, f"{draft.origin}: serving.host")
    yield Setting("SHOAL_API_PORT", str(spec.serving.port), f"{draft.origin}: serving.port")
    if spec.runtime == "process":
        key = f"{draft.root}/{STATE}/{API_KEY}"
        yield Setting("SHOAL_API_KEY_FILE", key, "by file: never in argv")
        if any(file.path == MODELS for file in draft.files):
            yield Setting("SHOAL_MODELS_FILE", f"{draft.root}/{CURRENT}/{MODELS}", f"{draft.origin}: model.registry")


# What the head's agent reads as well, for its page: who changes one of these starts both again.
FOR_THE_PAGE = frozenset({"SHOAL_SERVE_PORT", "SHOAL_API_KEY_FILE"})


def _serves(name: str) -> bool:
    """Whether the supervisor alone reads this variable."""
    return name in BY_NAME and BY_NAME[name].reader == "serve"


def unit_digests(spec: ClusterSpec, draft: Draft) -> dict[UnitName, str]:
    """By program of the node: a name for all that it is started with."""
    program = [spec.runtime, spec.image if spec.runtime == "compose" else spec.python]
    program += [file.sha256 or file.text for file in draft.files if file.path in {PYZ, COMPOSE}]
    registry = [file.text for file in draft.files if file.path == MODELS]
    values = [(setting.name, setting.value) for setting in draft.settings]
    found: dict[UnitName, str] = {"agent": digest_of(program, [item for item in values if not _serves(item[0])])}
    if draft.host.role == "head":
        found["engine"] = digest_of(
            program, registry, [item for item in values if _serves(item[0]) or item[0] in FOR_THE_PAGE]
        )
    return found


def project(cluster: str) -> str:
    """The name of Compose's project."""
    return "shoal-" + re.sub(r"[^a-z0-9_-]+", "-", cluster.lower())


def deployment(spec: ClusterSpec, draft: Draft, digest: str) -> NodeDeployment:
    """The node, whole."""
    release = f"{draft.root}/releases/{digest}"
    units = tuple(
        (_container_unit if spec.runtime == "compose" else _process_unit)(spec, draft, release, name, own)
        for name, own in unit_digests(spec, draft).items()
    )
    return NodeDeployment(
        name=draft.host.name,
        role=draft.host.role,
        ssh=draft.ssh,
        address=draft.address,
        address_why=draft.address_why,
        gpus=draft.gpus,
        root=draft.root,
        temp=draft.temp if spec.runtime == "process" else "",
        files=draft.files,
        secrets=tuple(_secrets(spec, draft)),
        environment=draft.settings,
        ports=tuple(_ports(spec, draft)),
        units=units,
        boot=_boot(spec, draft) if spec.runtime == "process" else "",
    )


def _process_unit(spec: ClusterSpec, draft: Draft, release: str, name: UnitName, digest: str) -> UnitPlan:
    word = "agent" if name == "agent" else "serve"
    own = (Setting("SHOAL_NODE_NAME", "engine", "shown in status and logs"),) if name == "engine" else ()
    return UnitPlan(
        name=name,
        digest=digest,
        start=(spec.python or "", f"{release}/{PYZ}", word),
        # By id, once its start time is the one that was written down.
        stop=("kill", "-TERM", f"<pid in {draft.root}/{STATE}/{name}.unit>"),
        environment=own,
        log=f"{draft.root}/{LOGS}/{name}.log",
    )


def _boot(spec: ClusterSpec, draft: Draft) -> str:
    """By way of ``current``, so that the line stays when the release changes."""
    words = (spec.python or "", f"{draft.root}/{CURRENT}/{PYZ}", "boot")
    return " ".join(map(shlex.quote, words)).replace("%", r"\%")  # which is a line's end in a crontab


def start_step(plan: FleetPlan, node: NodeDeployment, unit: UnitPlan) -> dict[str, Any]:
    """What starts a process on its host, and writes down that it was."""
    env = environment_of(node, unit)
    return {
        "do": "start",
        "unit": unit.name,
        "release": plan.digest,
        "digest": unit.digest,
        "argv": unit.start,
        "log": unit.log,
        "env": env,
        "folders": [node.temp, env["TMPDIR"]],
    }


def environment_of(node: NodeDeployment, unit: UnitPlan) -> dict[str, str]:
    """What a program is started with: the node's file, and its own on top."""
    text = next(file.text or "" for file in node.files if file.path == ENV)
    return parse(text).values | {setting.name: setting.value for setting in unit.environment}


def _container_unit(spec: ClusterSpec, draft: Draft, release: str, name: UnitName, digest: str) -> UnitPlan:
    base = (
        *draft.compose, "-p", project(spec.cluster), "--project-directory", release, "-f", f"{release}/{COMPOSE}",
    )  # fmt: skip
    service = SERVICES[name]
    return UnitPlan(
        name=name,
        digest=digest,
        start=(*base, "up", "-d", "--no-deps", "--force-recreate", service),
        stop=("docker", "stop", "-t", str(GRACE), container(name, draft.host.role)),
        log=f"docker logs {container(name, draft.host.role)}",
    )


def container(unit: str, role: str) -> str:
    """What the container of a unit is called."""
    return f"ray-{role}" if unit == "agent" else "vllm"


def _secrets(spec: ClusterSpec, draft: Draft) -> Iterator[PlannedSecret]:
    why = "every node shows it to Ray, and what agents and supervisor say to each other is signed by it"
    yield PlannedSecret(path=f"{STATE}/{RAY_TOKEN}", source=f"{GENERATED}:{RAY_TOKEN}", why=why)
    if draft.host.role == "head":
        asked = spec.serving.api_key
        source = f"{GENERATED}:{API_KEY}" if asked == "generate" else asked
        yield PlannedSecret(path=f"{STATE}/{API_KEY}", source=source, why="who has it may use the endpoint")


def _ports(spec: ClusterSpec, draft: Draft) -> Iterator[PlannedPort]:
    head = draft.host.role == "head"
    for what, port in node_ports(draft.port("SHOAL_PORT_BASE", 27000), GCS_PORT).named(head=head).items():
        yield PlannedPort(address=draft.address, port=port, what=what)
    yield PlannedPort(address=draft.address, port=draft.port("SHOAL_AGENT_PORT", 8700), what="agent")
    if head:
        serve = draft.port("SHOAL_SERVE_PORT", 8701)
        yield PlannedPort(address=draft.address, port=serve, what="supervisor")
        yield PlannedPort(address=draft.api_host, port=spec.serving.port, what="the API")
