"""``shoal fit``: a model and the GPUs that are meant, read and brought together."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.engine.models import resolve
from shoal.errors import UsageError
from shoal.facts import gpu
from shoal.facts.meminfo import GIB
from shoal.facts.model_shape import ModelShape, parse
from shoal.host.local import LocalHost
from shoal.ops import model_source
from shoal.plan.fit import Answer, Fleet, Weights, answer
from shoal.plan.gpus import GPUS, MIB
from shoal.plan.models import choose
from shoal.spec import cluster
from shoal.spec.environ import cache_dir
from shoal.spec.nearest import did_you_mean
from shoal.spec.registry import builtin, load

LONG_ENOUGH = 32768  # tokens of a request that must fit where nothing else is asked for, and the model takes so many


@dataclass(frozen=True)
class Wish:
    """What the user said; None where he did not."""

    model: str | None
    file: Path | None = None
    nodes: int | None = None
    gpus: int | None = None
    gpu: str | None = None
    memory_gib: float | None = None
    unified: bool = False
    context: int | None = None
    utilization: float = 0.9


@dataclass(frozen=True)
class Fit:
    """The model, the GPUs, and what becomes of them."""

    name: str
    origin: str
    shape: ModelShape
    weights: Weights
    fleet: Fleet
    wanted: int
    answer: Answer


def fit(wish: Wish, env: Mapping[str, str], report: Callable[[str], None]) -> Fit:
    """How the model fits.

    Raises:
        UsageError: no model, or no GPU, is named.
        ShoalError: the model cannot be read.
    """
    spec = cluster.load(wish.file) if wish.file else None
    name = wish.model or (spec.model.name if spec else "")
    if not name:
        raise UsageError("no model is named", fix="shoal fit MODEL, or: shoal fit -f shoal.yaml")
    fleet = _fleet(wish, spec)
    source = model_source.read(_located(name, spec, env, report), env)
    shape = parse(source.config)
    wanted = wish.context or min(shape.context or LONG_ENOUGH, LONG_ENOUGH)
    weights = Weights(shape, source.file_bytes)
    found = answer(shape, fleet, wanted, source.file_bytes)
    return Fit(name, source.origin, shape, weights, fleet, wanted, found)


def _located(
    name: str, spec: cluster.ClusterSpec | None, env: Mapping[str, str], report: Callable[[str], None]
) -> Path | str:
    registry = builtin() | (load(Path(spec.model.registry)) if spec and spec.model.registry else {})
    entry = choose(name, registry, "MODEL")
    return resolve(entry, cache_dir(dict(env)), LocalHost(), report, sys.executable)


def _fleet(wish: Wish, spec: cluster.ClusterSpec | None) -> Fleet:
    hosts = spec.hosts if spec else ()
    counts = [host.gpus for host in hosts if isinstance(host.gpus, int)]
    nodes = wish.nodes or len(hosts) or 1
    here = gpu.read(LocalHost()) if wish.gpu is None and wish.memory_gib is None else None
    memory, unified, seen = _memory(wish, here or ())
    return Fleet(nodes, wish.gpus or min(counts, default=seen), memory, wish.utilization, unified)


def _memory(wish: Wish, here: tuple[gpu.Gpu, ...]) -> tuple[int, bool, int]:
    """Bytes of a GPU, whether they are the host's too, and how many GPUs were seen on this machine."""
    if wish.memory_gib is not None:
        return int(wish.memory_gib * GIB), wish.unified, 1
    if wish.gpu is not None:
        if wish.gpu not in GPUS:
            raise UsageError(f'unknown GPU "{wish.gpu}"', why=did_you_mean(wish.gpu, GPUS), fix="or: --memory GIB")
        return GPUS[wish.gpu].memory, GPUS[wish.gpu].unified, 1
    told = [one.memory_mib for one in here if one.memory_mib]
    if told:
        return min(told) * MIB, False, len(told)
    raise UsageError(
        "no GPU is named, and this machine shows none",
        why="how much fits is a matter of its memory",
        fix=f"--gpu NAME ({', '.join(GPUS)}), or --memory GIB",
    )
