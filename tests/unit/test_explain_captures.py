"""Real logs of one machine with two GPUs, over five transports: each file alone and each pair together."""

import json
from pathlib import Path

import pytest

from shoal.explain.story import Story
from shoal.explain.verdict import Explanation, explain
from shoal.ui.explain_page import document

LOGS = Path(__file__).parents[1] / "machines" / "h200x2" / "logs"
GOLDEN = Path(__file__).parents[1] / "golden" / "explain"
CASES = ("p2p", "shm", "socket", "badhca", "badif")
FILES = {name: [f"nccl-{name}-rank0.txt", f"nccl-{name}-rank1.txt"] for name in CASES}
SETS = {f"{name}-{part}": files for name, pair in FILES.items() for part, files in (
    ("rank0", pair[:1]), ("rank1", pair[1:]), ("both", pair))}  # fmt: skip


def explained(*names: str) -> Explanation:
    stories = []
    for name in names:
        story = Story(name)
        story.read([(LOGS / name).read_bytes()])
        stories.append(story)
    return explain(stories)


@pytest.mark.parametrize("name", SETS)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    """The whole document of a capture is the golden one."""
    now = json.dumps(document(explained(*SETS[name])), indent=1, ensure_ascii=False) + "\n"
    file = GOLDEN / f"h200x2-{name}.json"
    if request.config.getoption("--update", default=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now, encoding="utf-8")
    assert now == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("case", "status", "cause", "words"),
    [
        ("p2p", "ok", None, "traffic over P2P (NVLink)"),
        ("shm", "degraded", "nccl.p2p-disabled-by-env", "P2P is disabled by the environment (NCCL_P2P_DISABLE=1)"),
        (
            "socket",
            "degraded",
            "nccl.p2p-shm-disabled-by-env",
            (
                "P2P and shared memory are disabled by the environment (NCCL_P2P_DISABLE=1, NCCL_SHM_DISABLE=1), "
                "so the traffic between GPUs goes over NET/Socket"
            ),
        ),
        ("badhca", "degraded", "nccl.ib-hca-no-match", "NCCL_IB_HCA=roceP2p1s0f0 matches no device"),
        ("badif", "failed", "nccl.socket-ifname-no-match", "NCCL_SOCKET_IFNAME=enP2p1s0f0np0 names no interface"),
    ],
)
@pytest.mark.parametrize("files", ["rank0", "both"])
def test_the_truth(case: str, status: str, cause: str | None, words: str, files: str) -> None:
    """Each capture's verdict is what was done to the machine."""
    told = explained(*SETS[f"{case}-{files}"])
    assert (told.status, told.root_cause, words in told.verdict) == (status, cause, True)


def test_the_missing_plugin_is_told() -> None:
    """Beside the device that does not exist, the plugin that does not exist is named."""
    told = explained(*FILES["badhca"])
    assert "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so was not found" in told.verdict


def test_a_rank_that_lost_its_peer_is_no_cause() -> None:
    """The rank whose peer ended says so, and no cause is made up."""
    told = explained("nccl-badif-rank1.txt")
    assert (told.status, told.root_cause, told.verdict) == (
        "failed",
        None,
        (
            "Only consequences of something else: the store of rank 0 went away: rank 0 ended first. "
            "The cause is not in these lines"
        ),
    )
