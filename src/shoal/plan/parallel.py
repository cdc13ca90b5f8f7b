"""How a model is split over ranks."""

from dataclasses import dataclass

from shoal.errors import UsageError


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
