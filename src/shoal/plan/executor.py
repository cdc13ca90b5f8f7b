"""What holds the engine's ranks on several nodes: Ray, or vLLM's own multiprocessing executor. Pure.

vLLM's own is called ``mp``. Each node but the first runs ``vllm serve --headless --node-rank R``; all meet at a store
of torch's on the first one.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shoal.errors import ConfigError, PreconditionFailed
from shoal.log import is_secret
from shoal.plan.parallel import Parallel
from shoal.spec.env_table import BY_NAME, PER_NODE
from shoal.state.status import ExecutorKind, Versions

# What the executor is told on several nodes, by the server's parser. vLLM has all of them since 0.12.
MP_OPTIONS = ("nnodes", "node-rank", "master-addr", "master-port", "headless")
# Words that only the API's server needs, each with its value.
SERVER_ONLY = frozenset({"--host", "--port", "--middleware"})
# Said by each node itself; an order that says them is none.
OWN = frozenset({"-n", "-r", *(f"--{name}" for name in MP_OPTIONS)})


def choose(wish: str, found: Versions) -> ExecutorKind:
    """The executor for an image with those versions; ``wish`` is ``auto``, ``ray`` or ``mp``.

    Raises:
        PreconditionFailed: there is no vLLM, or Ray is wished for and not there.
    """
    if found.vllm is None:
        raise PreconditionFailed("there is no vLLM in this image", fix="set SHOAL_IMAGE to an image with vLLM")
    if wish == ExecutorKind.RAY and found.ray is None:
        raise PreconditionFailed(
            f"there is no Ray in this image, beside vLLM {found.vllm}",
            why="SHOAL_EXECUTOR=ray: vLLM's ranks on several nodes shall live in Ray",
            fix="set SHOAL_EXECUTOR=mp, or SHOAL_IMAGE to an image with Ray",
        )
    if wish == "auto":
        return ExecutorKind.RAY if found.ray else ExecutorKind.MP
    return ExecutorKind(wish)


def check_options(options: AbstractSet[str], vllm: str | None) -> None:
    """Raise PreconditionFailed where the installed vLLM's parser lacks what ``mp`` on several nodes needs."""
    missing = [f"--{name}" for name in MP_OPTIONS if name not in options]
    if missing:
        raise PreconditionFailed(
            f"vLLM {vllm} in this image does not know {', '.join(missing)}",
            why="its ranks on several nodes then need Ray",
            fix="set SHOAL_IMAGE to an image with Ray, or with a newer vLLM",
        )


def order_of(expect: Sequence[tuple[str, int]], head: str) -> tuple[str, ...]:
    """The addresses of the nodes with ranks, by node rank: the head, then the others as they are named."""
    holders = [address for address, gpus in expect if gpus]
    return (head, *(address for address in holders if address != head))


def check_split(expect: Sequence[tuple[str, int]], head: str, parallel: Parallel) -> None:
    """Raise ConfigError where ``mp`` cannot spread these ranks over these nodes: each node gets the same number."""
    holders = {address: gpus for address, gpus in expect if gpus}
    if head not in holders:
        what = f"SHOAL_EXPECT names no GPU of the head ({head}): without Ray the first rank lives with the API"
        raise ConfigError(what, fix=f"add {head}:GPUS to SHOAL_EXPECT, or use an image with Ray")
    share, rest = divmod(parallel.world, len(holders))
    if rest or any(gpus < share for gpus in holders.values()):
        named = ", ".join(f"{address}:{gpus}" for address, gpus in holders.items())
        what = f"{parallel.world} rank(s) cannot be spread evenly over {named}"
        why = "without Ray every node runs the same number of ranks"
        raise ConfigError(what, why=why, fix="name nodes with equal numbers of GPUs, or use an image with Ray")


def node_words(rank: int, nodes: int, head: str) -> tuple[str, ...]:
    """What tells one node of ``nodes`` its place; ``head`` is ADDRESS:PORT of torch's store."""
    if nodes == 1:
        return ()
    host, _, port = head.rpartition(":")
    return (
        "--nnodes", str(nodes), "--node-rank", str(rank), "--master-addr", host.strip("[]"), "--master-port", port,
    )  # fmt: skip


def rank_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """The server's arguments, less what only the API needs: those of the ranks on another node."""
    out: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in SERVER_ONLY:
            next(words, None)
        else:
            out.append(word)
    return tuple(out)


def carried(env: Mapping[str, str]) -> dict[str, str]:
    """What the ranks on other nodes are told of the engine's environment: of shoal's table, and the same everywhere."""
    return {name: value for name, value in env.items() if _travels(name)}


def _travels(name: str) -> bool:
    return name in BY_NAME and name not in PER_NODE and not name.startswith("RAY_") and not is_secret(name)


class RankOrder(BaseModel):
    """The supervisor's order to one node: run your ranks of this engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1, lt=4096)
    nodes: int = Field(ge=2, le=4096)
    arguments: tuple[str, ...] = Field(max_length=512)
    env: dict[str, str] = {}

    @field_validator("arguments")
    @classmethod
    def _leave_the_place_to_the_node(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        taken = [word for word in words if word.partition("=")[0].replace("_", "-") in OWN]
        if taken or any("\0" in word for word in words):
            raise ValueError(f"{', '.join(taken) or 'a zero byte'} is not the supervisor's to say")
        return words

    @field_validator("env")
    @classmethod
    def _is_carried(cls, env: dict[str, str]) -> dict[str, str]:
        if other := sorted(set(env) - set(carried(env))):
            raise ValueError(f"{', '.join(other)} does not travel")
        return env


def rank_argv(python: str, program: str, order: RankOrder, head: str) -> tuple[str, ...]:
    """The command that runs this node's ranks; ``program`` is the module of vLLM's command line."""
    return (
        python, "-m", program, "serve", *order.arguments, "--headless", *node_words(order.rank, order.nodes, head),
    )  # fmt: skip
