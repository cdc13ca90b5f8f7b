"""Logs of NCCL in ranks of vLLM, on two hosts with a real GPU each: while they served, and while one fell."""

import pytest
from tests.conftest import Golden
from tests.unit.test_explain_captures import LOGS

from shoal.explain.story import Story
from shoal.explain.verdict import explain
from shoal.ui.explain_page import document

HERE = LOGS.parents[1] / "h100x2" / "logs"
CASES = {
    "pipeline": ("pipeline-rank0", "pipeline-rank1"),
    "tensor": ("tensor-rank0", "tensor-rank1"),
    "killed": ("killed-rank0",),
    "stopped": ("stopped-rank0",),
    "raylet": ("raylet-rank0",),
}


@pytest.mark.parametrize("name", CASES)
def test_two_hosts(name: str, golden: Golden) -> None:
    """Ranks that serve go over sockets; the one whose peer was killed names that peer, and the stopped one nobody."""
    stories = []
    for part in CASES[name]:
        story = Story(f"{part}.txt")
        story.read([(HERE / f"nccl-{part}.txt").read_bytes()])
        stories.append(story)
    golden(f"explain/h100x2-{name}.json", document(explain(stories)))
