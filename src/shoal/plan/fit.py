"""How a model fits on GPUs: for each tensor x pipeline x data parallel size what a rank holds. Pure.

Weights are counted from the model's shape, and scaled to the size of its files where that is known. What is left of a
GPU's memory after weights and work space holds the KV cache. The numbers are for planning, not for the last GiB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from shoal.facts.meminfo import GIB, gib
from shoal.facts.model_shape import ModelShape

KV_BYTES = 2  # of a cached number; vLLM's `auto` keeps 16 bits
STEP_TOKENS = 8192  # vLLM's max-num-batched-tokens, by which the work space grows
LOGIT_ROWS = 256  # requests in one step, each with a number for each word
CONTEXT_BYTES = int(1.5 * GIB)  # CUDA context, NCCL's buffers, CUDA graphs
HOST_BYTES = 12 * GIB  # on unified memory: system, Ray, object store, the engine's own processes


@dataclass(frozen=True)
class Fleet:
    """The GPUs: nodes, GPUs on each, bytes of each; ``unified``: the host's memory is the GPU's."""

    nodes: int
    gpus: int
    memory: int
    utilization: float = 0.9
    unified: bool = False

    @property
    def total(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus

    @property
    def usable(self) -> int:
        """Bytes of one GPU that vLLM may use."""
        share = int(self.memory * self.utilization)
        return min(share, self.memory - HOST_BYTES) if self.unified else share


@dataclass(frozen=True)
class Layout:
    """One way to split a model, and what becomes of it. ``problem`` is empty where it works."""

    tensor: int
    pipeline: int
    data: int
    weight_bytes: int = 0  # of the fullest rank
    kv_bytes: int = 0  # of the rank with the least room
    kv_tokens: int = 0  # that its cache holds
    context: int = 0  # of the longest single request
    fabric_bytes: int = 0  # that leave a node for each generated token, at most
    fabric_steps: int = 0  # times that a token waits for the fabric
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """All layouts of a model on a fleet, the one to choose, and why."""

    layouts: tuple[Layout, ...]
    best: Layout | None
    why: str


class Weights:
    """Bytes of a model's parts, before they are split."""

    def __init__(self, shape: ModelShape, file_bytes: int = 0) -> None:
        self._shape = shape
        counted = self._counted
        # Files of 32-bit weights are loaded as 16 bits.
        loaded = file_bytes * shape.dtype_bytes // shape.stored_bytes
        self.scale = loaded / counted if loaded else 1.0

    @property
    def total(self) -> int:
        """Of the whole model."""
        return round(self._counted * self.scale)

    @cached_property
    def _counted(self) -> float:
        ends = self._ends * (1 if self._shape.tied else 2)
        return ends + sum(self._layer(moe) for moe in self._shape.moe)

    @property
    def _ends(self) -> float:
        return self._shape.vocab * self._shape.hidden * self._shape.dtype_bytes

    def _bits(self, *, expert: bool) -> float:
        quantization = self._shape.quantization
        if quantization is None or (quantization.experts_only and not expert):
            return 8.0 * self._shape.dtype_bytes
        return quantization.bits

    def _layer(self, moe: bool) -> float:
        return self._attention() + (self._experts() if moe else self._dense(self._shape.width))

    def _attention(self) -> float:
        shape = self._shape
        if shape.latent is None:
            numbers = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)
        else:
            one = shape.latent
            query = shape.heads * (one.nope + one.rope)
            down = shape.hidden * (one.kv_rank + one.rope + one.query_rank)
            up = one.kv_rank * shape.heads * (one.nope + one.value) + (one.query_rank or shape.hidden) * query
            numbers = down + up + shape.heads * one.value * shape.hidden
        return numbers * self._bits(expert=False) / 8

    def _dense(self, width: int, *, expert: bool = False) -> float:
        matrices = 3 if self._shape.gated else 2
        return matrices * self._shape.hidden * width * self._bits(expert=expert) / 8

    def _experts(self) -> float:
        experts = self._shape.experts
        if experts is None:
            return 0.0
        router = self._shape.hidden * experts.count * self._shape.dtype_bytes
        return router + experts.count * self._dense(experts.width, expert=True) + self._dense(experts.shared)

    def stage(self, layers: range, tensor: int) -> int:
        """Of one rank of the stage that has these layers."""
        whole = sum(self._layer(self._shape.moe[number]) for number in layers)
        if layers.start == 0:
            whole += self._ends
        if layers.stop == self._shape.layers and not (self._shape.tied and layers.start == 0):
            whole += self._ends
        return round(whole * self.scale / tensor)


def stages(layers: int, pipeline: int) -> tuple[range, ...]:
    """Which layers each stage has: as vLLM's ``get_pp_indices`` deals them out, what is over goes before the last."""
    sizes = [layers // pipeline] * pipeline
    for back in range(2, layers % pipeline + 2):
        sizes[-back] += 1
    ends = [sum(sizes[: n + 1]) for n in range(pipeline)]
    return tuple(range(end - size, end) for end, size in zip(ends, sizes, strict=True))


def layouts(shape: ModelShape, fleet: Fleet, file_bytes: int = 0) -> tuple[Layout, ...]:
    """Every way to use all GPUs, the smallest data parallel size first."""
    weights = Weights(shape, file_bytes)
    sizes = [
        (tensor, model // tensor, fleet.total // model)
        for model in _divisors(fleet.total)
        for tensor in _divisors(model)
    ]
    return tuple(_layout(shape, weights, fleet, *size) for size in sorted(sizes, key=lambda size: (size[2], -size[0])))


def _divisors(number: int) -> Iterator[int]:
    return (n for n in range(1, number + 1) if number % n == 0)


def _layout(shape: ModelShape, weights: Weights, fleet: Fleet, tensor: int, pipeline: int, data: int) -> Layout:
    if problem := indivisible(shape, fleet, tensor, pipeline):
        return Layout(tensor, pipeline, data, problem=problem)
    parts = stages(shape.layers, pipeline)
    held = [weights.stage(part, tensor) for part in parts]
    room = fleet.usable - workspace(shape, tensor)
    caches = [room - own for own in held]
    tokens = [_tokens(shape, part, tensor, cache) for part, cache in zip(parts, caches, strict=True)]
    fabric_bytes, steps = crossing(shape, fleet, tensor, pipeline)
    found = Layout(
        tensor, pipeline, data,
        weight_bytes=max(held), kv_bytes=max(0, min(caches)), kv_tokens=max(0, min(tokens)),
        context=max(0, min(*tokens, shape.context or min(tokens))), fabric_bytes=fabric_bytes, fabric_steps=steps,
    )  # fmt: skip
    return found if found.context else _too_big(found, fleet, room)


def _too_big(found: Layout, fleet: Fleet, room: int) -> Layout:
    free = f"{gib(max(0, room))} of {gib(fleet.memory)} are free for them"
    what = f"{gib(found.weight_bytes)} of weights on a rank, and {free}"
    return Layout(found.tensor, found.pipeline, found.data, weight_bytes=found.weight_bytes, problem=what)


def indivisible(shape: ModelShape, fleet: Fleet, tensor: int, pipeline: int) -> str:
    """Why a model cannot be split so, whatever the memory; nothing where it can."""
    if shape.heads % tensor:
        return f"{shape.heads} attention heads are not divisible by {tensor}"
    if shape.latent is None and shape.kv_heads % tensor and tensor % shape.kv_heads:
        return f"{shape.kv_heads} key-value heads are not divisible by {tensor}, nor {tensor} by them"
    if pipeline > shape.layers:
        return f"{pipeline} stages are more than {shape.layers} layers"
    if fleet.gpus % tensor and tensor % fleet.gpus:
        return f"{tensor} ranks are neither a part of a node's {fleet.gpus} GPUs nor whole nodes"
    block = shape.quantization.block if shape.quantization else 0
    widths = [shape.width] if not all(shape.moe) else []
    widths += [shape.experts.width] if shape.experts else []
    for width in widths if block else ():
        if width % tensor or width // tensor % block:
            return f"a layer's width of {width} does not split into {tensor} parts of whole {block}-blocks"
    return ""


def workspace(shape: ModelShape, tensor: int) -> int:
    """Bytes of a rank beside weights and cache: activations of one step, logits, CUDA's and NCCL's own."""
    widest = max(shape.width, shape.experts.width if shape.experts else 0)
    step = STEP_TOKENS * (4 * shape.hidden + 3 * widest // tensor) * 2
    return step + LOGIT_ROWS * shape.vocab * 4 + CONTEXT_BYTES


def _token_bytes(shape: ModelShape, tensor: int) -> int:
    """Bytes of one token in one layer's cache on one rank."""
    if shape.latent is not None:
        return (shape.latent.kv_rank + shape.latent.rope) * KV_BYTES  # one vector for all heads: every rank has it
    return 2 * max(1, shape.kv_heads // tensor) * shape.head_dim * KV_BYTES


def _tokens(shape: ModelShape, layers: range, tensor: int, cache: int) -> int:
    """The longest request that a stage's cache holds; layers with a window keep no more than that."""
    each = _token_bytes(shape, tensor)
    full = sum(shape.full[number] for number in layers)
    windowed = len(layers) - full
    window = shape.window or 0
    if cache <= each * len(layers) * window or windowed == 0:
        return cache // (each * len(layers))
    if full == 0:
        return shape.context or window
    return (cache - each * windowed * window) // (each * full)


def crossing(shape: ModelShape, fleet: Fleet, tensor: int, pipeline: int) -> tuple[int, int]:
    """Bytes that leave a node for one token, and how often the token waits for the fabric."""
    hidden = shape.hidden * shape.dtype_bytes
    nodes = max(1, tensor // fleet.gpus)
    size = steps = 0
    if nodes > 1:
        # After attention and after the feed-forward part, and once for the embedding; a ring of nodes.
        steps = 2 * shape.layers + 1
        size = steps * hidden * 2 * (nodes - 1) // nodes
    stages_on_a_node = max(1, fleet.gpus // tensor)
    hops = -(-pipeline // stages_on_a_node) - 1
    # vLLM hands on the hidden state and the residual.
    return size + (2 * hidden if hops else 0), steps + hops


def answer(shape: ModelShape, fleet: Fleet, wanted: int, file_bytes: int = 0) -> Answer:
    """All layouts, and the one to choose for requests of ``wanted`` tokens."""
    found = layouts(shape, fleet, file_bytes)
    possible = [layout for layout in found if not layout.problem]
    # One replica over all GPUs is what shoal starts.
    single = sorted((layout for layout in possible if layout.data == 1), key=lambda layout: _rank(layout, wanted))
    if not single:
        return Answer(found, None, _why_none(found, fleet))
    best = single[0]
    return Answer(found, best, "; ".join(_reasons(best, possible, fleet, wanted)))


def _rank(layout: Layout, wanted: int) -> tuple[bool, int, int]:
    return layout.context < wanted, layout.fabric_steps, layout.pipeline


def _why_none(found: tuple[Layout, ...], fleet: Fleet) -> str:
    nearest = min((layout for layout in found if layout.weight_bytes), key=lambda one: one.weight_bytes, default=None)
    if nearest is None:
        return f"no split over {fleet.total} GPU(s) divides the model: {found[0].problem}"
    return f"it does not fit on {fleet.total} GPU(s): at best {nearest.problem}"


def _reasons(best: Layout, possible: list[Layout], fleet: Fleet, wanted: int) -> Iterator[str]:
    if best.fabric_steps == 0:
        yield "all ranks are on one node, so no token waits for the fabric"
    elif best.tensor > fleet.gpus:
        yield f"tensor parallel over nodes: each token waits {times(best)} for the fabric"
    else:
        within = "tensor parallel within a node, " if best.tensor > 1 else ""
        yield f"{within}a pipeline between nodes: each token waits {times(best)} for the fabric"
    others = [layout for layout in possible if layout.data == 1]
    most = max(others, key=lambda layout: layout.fabric_steps)
    if best.fabric_steps < most.fabric_steps:
        yield f"with TP {most.tensor} x PP {most.pipeline} it would wait {times(most)}"
    if best.context < wanted:
        yield f"no split holds a request of {wanted:,} tokens"
    replicas = max((layout for layout in possible if layout.context >= wanted), key=lambda one: one.data, default=best)
    if replicas.data > 1:
        size = replicas.tensor * replicas.pipeline
        yield f"it fits on {size} GPU(s): {replicas.data} endpoints of their own would serve more requests at once"


def times(layout: Layout) -> str:
    """How often a token waits, in words."""
    return "once" if layout.fabric_steps == 1 else f"{layout.fabric_steps} times"
