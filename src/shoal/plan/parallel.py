"""How a model is split over ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Parallel:
    """Parallel sizes and the reason for them."""

    tensor: int
    pipeline: int
    why: str

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.tensor * self.pipeline


def on_cpu(nodes: int, layers: int | None) -> Parallel:
    """Pipeline parallel over CPU nodes: activations cross once per stage, not twice per layer.

    Raises:
        UsageError: more stages than the model has layers.
    """
    if layers is not None and nodes > layers:
        raise UsageError(
            f"--nodes {nodes} is more than the model's {layers} layers",
            why="each node runs one stage of the pipeline and a stage holds at least one layer",
            fix=f"use --nodes {layers} or fewer",
        )
    return Parallel(1, nodes, f"pipeline over {nodes} CPU nodes: activations cross once per stage")


def over_gpus(gpus: Sequence[int], tensor: int | None = None, pipeline: int | None = None) -> Parallel:
    """How the model is split over nodes with that many GPUs each, but for what is asked for.

    Tensor parallel within a node, pipeline parallel between nodes: tensor parallel crosses twice per layer, a pipeline
    once per stage.

    Raises:
        ConfigError: more ranks are asked for than there are GPUs, or the rest cannot be divided.
    """
    total = sum(gpus)
    words = f"{total} GPU(s) on {len(gpus)} node(s)"
    if (tensor or 1) * (pipeline or 1) > total:
        asked = f"{(tensor or 1) * (pipeline or 1)} rank(s) are asked for, and SHOAL_EXPECT names {words}"
        raise ConfigError(asked, fix="lower SHOAL_TENSOR_PARALLEL or SHOAL_PIPELINE_PARALLEL, or name more nodes")
    if tensor and pipeline:
        return Parallel(tensor, pipeline, f"as SHOAL_TENSOR_PARALLEL and SHOAL_PIPELINE_PARALLEL say, on {words}")
    if not (tensor or pipeline):
        inner = math.gcd(*gpus)
        return Parallel(inner, total // inner, f"{words}: tensor parallel within a node, a pipeline between them")
    given = tensor or pipeline or 1
    if total % given:
        name = "SHOAL_TENSOR_PARALLEL" if tensor else "SHOAL_PIPELINE_PARALLEL"
        raise ConfigError(f"{name}={given} does not divide {words}", fix="set both sizes, or one that divides")
    rest = total // given
    return Parallel(tensor or rest, pipeline or rest, f"{words}: what was set, and the rest by the other way")


def check_model(parallel: Parallel, layers: int | None, heads: int | None) -> None:
    """Raise ConfigError where a model of so many layers and attention heads cannot be split so; None is not known."""
    if layers is not None and parallel.pipeline > layers:
        what = f"a pipeline of {parallel.pipeline} stages is longer than the model's {layers} layers"
        raise ConfigError(what, fix="set SHOAL_PIPELINE_PARALLEL lower, or name fewer nodes in SHOAL_EXPECT")
    if heads is not None and heads % parallel.tensor:
        what = f"tensor parallel over {parallel.tensor} GPUs does not divide the model's {heads} attention heads"
        raise ConfigError(what, fix=f"set SHOAL_TENSOR_PARALLEL to a divisor of {heads}")
