"""The engine's request out of a head's settings: ``MODEL_NAME``, the registry, the nodes, the installed vLLM.

``SHOAL_ENGINE_PLAN`` names a file with a whole request instead; `shoal up` writes one.
"""

import ipaddress
import sys
import tempfile
from pathlib import Path

from shoal.engine.launch import Request, read_request
from shoal.engine.models import resolve
from shoal.errors import ConfigError, PreconditionFailed, UsageError
from shoal.facts import gpu
from shoal.facts.model_folder import inspect
from shoal.facts.versions import is_cpu_build, versions
from shoal.facts.vllm_options import known_options
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.plan import executor as executors
from shoal.plan.engine import CPU_DEFAULTS, arguments
from shoal.plan.models import choose
from shoal.plan.parallel import Parallel, check_model, over_gpus
from shoal.spec.env import ServeSettings
from shoal.spec.registry import ModelEntry, builtin, check_options, load
from shoal.state.status import ExecutorKind

OTHERS = "set MODEL_NAME to a key of models.yaml, a folder below /models, or ORGANISATION/MODEL of the hub"


def obtain(settings: ServeSettings, log: EventLog, visible: str = "") -> tuple[ServeSettings, Request]:
    """The request, and the settings with the nodes that it needs. Reads and asks; may take seconds.
    ``visible`` is CUDA_VISIBLE_DEVICES.

    Raises:
        ConfigError: a setting, the registry or an option of it is wrong.
        PreconditionFailed: the image, the model or the machine is not fit for it.
    """
    if settings.engine_plan:
        return settings, read_request(settings.engine_plan)
    kind = executors.choose(settings.executor, versions())
    if not settings.model_name:
        raise ConfigError("MODEL_NAME is not set: the head serves one model", fix=OTHERS)
    host = LocalHost()
    settings = settings if settings.expect else replace_expect(settings, _own_gpus(settings, host, visible))
    entry = _entry(settings)
    parallel = over_gpus([gpus for _, gpus in settings.expect], settings.tensor_parallel, settings.pipeline_parallel)
    if kind is ExecutorKind.MP:
        _check_mp(settings, parallel, host)
    if entry.options:
        check_options(entry, known_options(host, sys.executable, _cache(settings)))
    model = _model(entry, settings, host, log)
    folder = isinstance(model, Path)
    if isinstance(model, Path):
        _check_folder(entry, model, parallel)
    log("model", f"{entry.key}: {model} ({entry.description or entry.origin})")
    log("model", f"executor {kind.value}: SHOAL_EXECUTOR={settings.executor}, Ray {versions().ray or 'not installed'}")
    log("model", f"tensor parallel {parallel.tensor}, pipeline {parallel.pipeline}: {parallel.why}")
    return settings, compose(settings, entry, str(model), parallel, kind, cpu=is_cpu_build(), offline=folder)


def _check_mp(settings: ServeSettings, parallel: Parallel, host: LocalHost) -> None:
    executors.check_split(settings.expect, settings.address, parallel)
    if len(executors.order_of(settings.expect, settings.address)) > 1:
        executors.check_options(known_options(host, sys.executable, _cache(settings)), versions().vllm)


def compose(
    settings: ServeSettings,
    entry: ModelEntry,
    model: str,
    parallel: Parallel,
    executor: ExecutorKind = ExecutorKind.RAY,
    *,
    cpu: bool,
    offline: bool,
) -> Request:
    """The request itself, pure. ``offline``: the model is a folder, and nobody is to ask the hub."""
    host = settings.api_host or settings.address
    reached = settings.address if ipaddress.ip_address(host).is_unspecified else host
    shown = f"[{reached}]" if ":" in reached else reached
    options = (CPU_DEFAULTS if cpu else {}) | dict(entry.options)
    return Request(
        model=entry.key,
        endpoint=f"http://{shown}:{settings.api_port}/v1",
        arguments=arguments(model, entry.key, host, settings.api_port, parallel, options, executor),
        # Without RAY_ADDRESS vLLM would quietly start a Ray of its own.
        env={"VLLM_HOST_IP": settings.address, "RAY_ADDRESS": settings.head}
        | ({"HF_HUB_OFFLINE": "1"} if offline else {}),
        executor=executor,
    )


def replace_expect(settings: ServeSettings, gpus: int) -> ServeSettings:
    """Settings that expect this node alone."""
    return settings.model_copy(update={"expect": ((settings.address, gpus),)})


def _own_gpus(settings: ServeSettings, host: LocalHost, visible: str) -> int:
    found = settings.num_gpus if settings.num_gpus is not None else len(gpu.read(host, visible) or ())
    if found < 1:
        what = "no GPU is seen here, and SHOAL_EXPECT names no node"
        raise ConfigError(what, fix="set SHOAL_EXPECT=ADDRESS:GPUS,... or SHOAL_NUM_GPUS")
    return found


def _entry(settings: ServeSettings) -> ModelEntry:
    own = load(Path(settings.models_file)) if settings.models_file else {}
    try:
        return choose(settings.model_name, builtin() | own, "MODEL_NAME")
    except UsageError as error:
        raise ConfigError(error.what, why=error.why, fix=OTHERS) from error


def _cache(settings: ServeSettings) -> Path:
    return Path(settings.cache_dir or tempfile.gettempdir())


def _model(entry: ModelEntry, settings: ServeSettings, host: LocalHost, log: EventLog) -> Path | str:
    try:
        return resolve(entry, _cache(settings), host, lambda step: log("model", step), sys.executable)
    except PreconditionFailed as error:
        # What mends it on a checkout (`make engine`) is no command in a container.
        raise PreconditionFailed(error.what, why=error.why, fix=OTHERS) from error


def _check_folder(entry: ModelEntry, path: Path, parallel: Parallel) -> None:
    found = inspect(path)
    if found.problems:
        raise PreconditionFailed(f"model {entry.key}: {path} is not whole", why=found.problems[0], fix=OTHERS)
    check_model(parallel, found.num_hidden_layers, found.num_attention_heads)
