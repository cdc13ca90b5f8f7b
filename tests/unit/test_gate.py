"""Who keeps the gate shut, by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.gate import SAME, Verdict, judge, lost
from shoal.state.status import ExecutorKind, NodeState, NodeStatus, Versions

VERSIONS = Versions(shoal="0.1.0", python="3.12.3", ray="2.60.0", vllm="0.32.0", torch="2.11.0", nccl="2.28.9")
A, B = "10.0.0.1", "10.0.0.2"
EXPECTED = ((A, 1), (B, 1))


def node(name: str, address: str, **changes: Any) -> NodeStatus:
    role = "head" if name == "head" else "worker"
    whole = NodeStatus(name=name, role=role, address=address, state=NodeState.UP, gpus=1, versions=VERSIONS)
    return whole.model_copy(update=changes)


def other(**changes: Any) -> Versions:
    return VERSIONS.model_copy(update=changes)


def test_open() -> None:
    """The gate opens when every expected node is up, with its GPUs and the same versions."""
    assert judge(EXPECTED, {A: node("head", A), B: node("w", B)}) == Verdict(open=True)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, f"{B}: its agent does not answer (not asked yet)"),
        ("connection refused", f"{B}: its agent does not answer (connection refused)"),
        (node("w", B, gpus=0), f"w ({B}) offers 0 GPU(s), expected 1"),
        (node("w", B, gpus=2), f"w ({B}) offers 2 GPU(s), expected 1"),
        (node("w", B, state=NodeState.JOINING), f"w ({B}) is joining"),
        (node("w", B, state=NodeState.WAITING, detail="no head"), f"w ({B}) is waiting: no head"),
    ],
)
def test_missing(answer: NodeStatus | str | None, reason: str) -> None:
    """A node that is absent, not up or has another number of GPUs keeps the gate shut and is named, with the reason."""
    answers = {A: node("head", A)} | ({} if answer is None else {B: answer})
    verdict = judge(EXPECTED, answers)
    assert verdict == Verdict(open=False, missing=(reason,))
    assert verdict.reason == reason


@pytest.mark.parametrize("field", SAME)
def test_different(field: str) -> None:
    """Where a version differs, every node is named with its own."""
    answers = {A: node("head", A), B: node("w", B, versions=other(**{field: "9"}))}
    reason = f"{field} differs: head has {getattr(VERSIONS, field)}, w has 9"
    assert judge(EXPECTED, answers) == Verdict(open=False, different=(reason,))


def test_another_executor() -> None:
    """A node that is set up for another executor than the engine keeps the gate shut, by name."""
    answers = {A: node("head", A, executor=ExecutorKind.MP), B: node("w", B)}
    assert judge(EXPECTED, answers, ExecutorKind.MP).different == (
        f"w ({B}) is set up for ray, the engine for mp: set SHOAL_EXECUTOR alike, or use one image",
    )


def test_ranks_that_ended_without_ray() -> None:
    """Without Ray the agent tells the end of its ranks, and a stay that is over: the engine has lost that node."""
    there = node("w", B, executor=ExecutorKind.MP, stay_id="1")
    ended = there.model_copy(update={"rank_ended": "vLLM's ranks here have ended (code 0): x"})
    again = there.model_copy(update={"stay_id": "2"})
    assert [lost({B: "1"}, {B: status}) for status in (there, ended, again)] == [
        "",
        f"w ({B}): vLLM's ranks here have ended (code 0): x",
        f"w ({B}) has left the cluster",
    ]


def test_equal_names() -> None:
    """Two nodes of one name with different versions keep the gate shut."""
    answers = {A: node("gpu", A), B: node("gpu", B, versions=other(ray="2.59.0"))}
    assert judge(EXPECTED, answers).reason == "ray differs: gpu has 2.60.0, gpu has 2.59.0"


def test_shoal_may_differ() -> None:
    """Different versions of shoal itself do not keep the gate shut."""
    assert judge(EXPECTED, {A: node("head", A), B: node("w", B, versions=other(shoal="0.2.0"))}).open


def test_unknown_versions() -> None:
    """A node that does not tell its versions differs from one that does."""
    reason = judge(EXPECTED, {A: node("head", A), B: node("w", B, versions=None)}).reason
    assert reason.startswith("python differs: head has 3.12.3, w has None; ray differs: ")


def test_doubled_address() -> None:
    """A node that claims another's address keeps the gate shut."""
    verdict = judge(EXPECTED, {A: node("head", A), B: node("w", A)})
    assert verdict == Verdict(open=False, missing=(f"the agent at {B} says that it is w at {A}",))


def test_everything_at_once() -> None:
    """All reasons are told in one sentence, not one after the other."""
    expected = (*EXPECTED, ("10.0.0.3", 1))
    answers = {A: node("head", A, gpus=0), B: node("w", B, versions=other(vllm="0.31.0")), "10.0.0.3": "refused"}
    assert judge(expected, answers).reason == (
        f"head ({A}) offers 0 GPU(s), expected 1; 10.0.0.3: its agent does not answer (refused); "
        "vllm differs: head has 0.32.0, w has 0.31.0"
    )


NODES = st.builds(
    node,
    name=st.sampled_from(["head", "w"]),
    address=st.sampled_from([A, B]),
    state=st.sampled_from([NodeState.UP, NodeState.UP, NodeState.LOST]),
    gpus=st.sampled_from([1, 1, 2]),
    versions=st.sampled_from([VERSIONS, VERSIONS, other(nccl=None), None]),
)


@given(st.dictionaries(st.sampled_from([A, B]), NODES | st.just("connection refused")))
def test_open_means_all_alike(answers: dict[str, NodeStatus | str]) -> None:
    """Whatever the agents say, the gate is open only when all is as expected, and gives a reason when it is not."""
    verdict = judge(EXPECTED, answers)
    present = [answer for answer in answers.values() if isinstance(answer, NodeStatus)]
    same = {tuple(getattr(item.versions, field, None) for field in SAME) for item in present}
    whole = [item.state is NodeState.UP and item.gpus == 1 for item in present] == [True, True]
    honest = all(item.address == asked for asked, item in answers.items() if isinstance(item, NodeStatus))
    assert verdict.open == (whole and honest and len(same) == 1)
    assert verdict.open == (verdict.reason == "")


def test_another_ray_is_a_lost_rank() -> None:
    """A node whose Ray is another one than at the launch, or none, has lost its rank."""
    launched = {A: "one", B: "two"}
    here = node("head", A).model_copy(update={"ray_node_id": "one"})
    again = node("w", B).model_copy(update={"ray_node_id": None, "detail": "joining"})
    assert lost(launched, {A: here, B: again}) == f"the Ray of w ({B}) has ended: joining"
    assert lost(launched, {A: here, B: again.model_copy(update={"ray_node_id": "two"})}) == ""


def test_silence_is_no_loss() -> None:
    """An agent that does not answer proves nothing about its rank."""
    assert lost({A: "one"}, {A: "no answer within 2 s"}) == ""
