"""Ray's node table and its drain, as values: the argv that asks and the parser of the answer.

The asking is done by ``python -m shoal.facts.ray_child``, a short-lived child that alone imports ray.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from shoal.errors import CommandFailed, ConfigError, NotRunning

CHILD = "shoal.facts.ray_child"
EXIT_FOUND, EXIT_NOT_FOUND, EXIT_UNREACHABLE = 0, 3, 4

DrainReason = Literal["PREEMPTION", "IDLE_TERMINATION"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class NodeRow:
    """One entry of the table. A node that rejoined has a new entry; its old ones stay, dead, until the GCS ends.

    ``start_time_ms`` is in milliseconds since the epoch; ``death_reason`` is empty while the node is alive.
    """

    node_id: str
    address: str
    alive: bool
    is_head: bool
    resources: Mapping[str, float] = field(default_factory=dict)
    start_time_ms: int = 0
    death_reason: str = ""
    hostname: str = ""

    @property
    def gpus(self) -> float:
        """GPUs the node offers to Ray."""
        return self.resources.get("GPU", 0.0)


@dataclass(frozen=True)
class RayTable:
    """What the GCS knows of its nodes. ``ray`` and ``python`` are the versions of the asking child, on this machine."""

    ray: str
    python: str
    cluster_id: str | None
    nodes: tuple[NodeRow, ...]

    def alive_at(self, address: str, mark: str = "") -> NodeRow | None:
        """The newest node alive at an address that offers the resource ``mark``, where one is given."""
        here = [row for row in self.nodes if row.alive and row.address == address]
        alive = [row for row in here if not mark or mark in row.resources]
        return max(alive, key=lambda row: row.start_time_ms, default=None)


@dataclass(frozen=True)
class DrainReply:
    """Whether the GCS takes the node out of service, and its reason where it does not."""

    accepted: bool
    reason: str = ""


@dataclass(frozen=True)
class GpuUse:
    """The GPUs of one node as Ray counts them: all, and those that no actor or placement group holds."""

    node_id: str
    total: float
    free: float


@dataclass(frozen=True)
class Usage:
    """The GPUs of the nodes that were asked for."""

    nodes: tuple[GpuUse, ...]

    @property
    def held(self) -> tuple[GpuUse, ...]:
        """Nodes on which GPUs are held."""
        return tuple(node for node in self.nodes if node.free < node.total)


def free_argv(python: str, address: str, nodes: Collection[str], timeout: float) -> tuple[str, ...]:
    """The child that waits, ``timeout`` seconds at most, until Ray holds no GPU of these nodes (ids)."""
    named = tuple(word for node_id in sorted(nodes) for word in ("--node", node_id))
    return (python, "-m", CHILD, "free", address, "--timeout", f"{timeout:g}", *named)


def early_argv(python: str, address: str, question: Path, timeout: float) -> tuple[str, ...]:
    """The same child, started before the question is known: it loads Ray and waits for the file with the ids.

    The file is there whole or not at all, an id in each line; ``timeout`` counts from then on.
    """
    return (python, "-m", CHILD, "free", address, "--timeout", f"{timeout:g}", "--question", str(question))


def parse_usage(text: str) -> Usage:
    """The child's answer about GPUs; errors as for :func:`parse_answer`."""
    return parse_answer(Usage, text)


def table_argv(
    python: str, address: str, wait: str | None = None, timeout: float = 5.0, mark: str = ""
) -> tuple[str, ...]:
    """The child that prints the table of the GCS at ``address`` (host:port).

    Args:
        python: the interpreter that has ray and shoal.
        wait: print as soon as a node with this address is alive.
        timeout: seconds after which the child gives up; it may need 5 s more to import ray and to say so.
        mark: a resource that the node waited for must offer: that of one raylet, whatever the GCS still thinks of
            those before it.
    """
    marked = ("--mark", mark) if mark else ()
    argv = (python, "-m", CHILD, "nodes", address, "--timeout", f"{timeout:g}", *marked)
    return argv if wait is None else (*argv, "--wait", wait)


def drain_argv(
    python: str, address: str, node_id: str, *, deadline: int, reason: DrainReason = "PREEMPTION", message: str = ""
) -> tuple[str, ...]:
    """The child that asks the GCS to drain a node, ``deadline`` in seconds from now."""
    options = ("--deadline", str(deadline), "--reason", reason, f"--message={message}")
    return (python, "-m", CHILD, "drain", address, node_id, *options)


def parse_table(text: str) -> RayTable:
    """The child's answer as a table; errors as for :func:`parse_answer`."""
    return parse_answer(RayTable, text)


def parse_drain(text: str) -> DrainReply:
    """The child's answer to a drain; errors as for :func:`parse_answer`."""
    return parse_answer(DrainReply, text)


def parse_answer(kind: type[Value], text: str) -> Value:
    """The child's one JSON document, the last line it printed.

    Raises:
        NotRunning: no GCS answered; ``why`` says what happened instead.
        ConfigError: the GCS refused the token, or there is none to show.
        CommandFailed: this is no answer at all.
    """
    line = text.strip().rpartition("\n")[2]
    raise_told(line)
    try:
        return TypeAdapter(kind).validate_json(line)
    except ValidationError as error:
        told = f"it printed {line[:200]!r}" if line else "it printed nothing"
        raise CommandFailed("the question to Ray's GCS got no answer", why=told) from error


def raise_told(line: str) -> None:
    """Raise what an error document tells; return where the line is none."""
    try:
        told = json.loads(line)
    except ValueError:
        return
    if not isinstance(told, dict) or "error" not in told:
        return
    why = str(told["error"])
    if told.get("kind") == "token":
        raise ConfigError(
            "Ray's GCS and this node do not share a token",
            why=why,
            fix="give every node the same token file (RAY_AUTH_TOKEN_PATH, RAY_AUTH_MODE=token)",
        )
    raise NotRunning("Ray's GCS did not answer", why=why)
