"""The gate: nothing loads weights before every expected node is there, whole and alike. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.state.status import ExecutorKind, NodeState, NodeStatus

SAME = ("python", "ray", "vllm", "torch", "nccl")


@dataclass(frozen=True)
class Verdict:
    """Whether the gate opens, and if not, who keeps it shut. ``final`` faults do not mend by waiting."""

    open: bool
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """One sentence about who is missing or different; empty where the gate is open."""
        return "; ".join((*self.missing, *self.different))


def judge(
    expected: Sequence[tuple[str, int]],
    answers: Mapping[str, NodeStatus | str],
    executor: ExecutorKind = ExecutorKind.RAY,
) -> Verdict:
    """The verdict on expected ``(address, gpus)``, given each agent's status or the reason why it has none.

    Every node must be set up for the engine's ``executor``.
    """
    missing = tuple(text for address, gpus in expected if (text := _missing(address, gpus, answers.get(address))))
    present = [answer for answer in answers.values() if isinstance(answer, NodeStatus)]
    different = (*_other_executors(present, executor), *_differences(present))
    return Verdict(not missing and not different, missing, different)


def present(expected: Sequence[tuple[str, int]], answers: Mapping[str, NodeStatus | str]) -> int:
    """How many of the expected nodes are there as expected."""
    return sum(not _missing(address, gpus, answers.get(address)) for address, gpus in expected)


def lost(launched: Mapping[str, str | None], answers: Mapping[str, NodeStatus | str]) -> str:
    """Which node is gone since the engine was launched on it; empty where all are there.

    A rank ends with its raylet, and vLLM may take five minutes to notice; without Ray the first node never looks at the
    others' ranks before the next request. An agent that is silent proves nothing, until
    it is lost.
    """
    gone = [
        _gone(answer, launched[address])
        for address, answer in answers.items()
        if isinstance(answer, NodeStatus) and address in launched
    ]
    return "; ".join(words for words in gone if words)


def _gone(node: NodeStatus, member: str | None) -> str:
    why = f": {node.detail}" if node.detail else ""
    if node.rank_ended:
        return f"{node.name} ({node.address}): {node.rank_ended}"
    if node.member != member:
        left = "the Ray of {} has ended" if node.executor is ExecutorKind.RAY else "{} has left the cluster"
        return left.format(f"{node.name} ({node.address})") + why
    return f"{node.name} ({node.address}) is lost{why}" if node.state is NodeState.LOST else ""


def _missing(address: str, gpus: int, answer: NodeStatus | str | None) -> str:
    if not isinstance(answer, NodeStatus):
        return f"{address}: its agent does not answer ({answer or 'not asked yet'})"
    if answer.state is not NodeState.UP:
        return f"{answer.name} ({address}) is {answer.state.value}" + (f": {answer.detail}" if answer.detail else "")
    if answer.address != address:
        return f"the agent at {address} says that it is {answer.name} at {answer.address}"
    if answer.gpus != gpus:
        return f"{answer.name} ({address}) offers {answer.gpus} GPU(s), expected {gpus}"
    return ""


def _other_executors(nodes: Sequence[NodeStatus], executor: ExecutorKind) -> list[str]:
    return [
        f"{node.name} ({node.address}) is set up for {node.executor.value}, the engine for {executor.value}: "
        "set SHOAL_EXECUTOR alike, or use one image"
        for node in nodes
        if node.executor is not executor
    ]


def _differences(nodes: Sequence[NodeStatus]) -> list[str]:
    out = []
    for field in SAME:
        values = [getattr(node.versions, field, None) for node in nodes]
        if len(set(values)) > 1:
            said = (f"{node.name} has {value}" for node, value in zip(nodes, values, strict=True))
            out.append(f"{field} differs: " + ", ".join(said))
    return out
