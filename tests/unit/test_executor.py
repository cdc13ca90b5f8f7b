"""What holds the ranks: chosen by what is installed; what each node is told without Ray, and when it is refused."""

import asyncio
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shoal.agent import mp_executor as module
from shoal.agent.heart import Heart
from shoal.agent.mp_executor import MpExecutor, ending, environment
from shoal.agent.proof import NcclFiles, Prover, Who
from shoal.agent.stages import Stage
from shoal.agent.supervise import end_all
from shoal.errors import ConfigError, PreconditionFailed, ShoalError
from shoal.host.fake import FakeHost
from shoal.log import EventLog
from shoal.plan.executor import (
    MP_OPTIONS,
    RankOrder,
    carried,
    check_options,
    check_split,
    choose,
    node_words,
    order_of,
    rank_arguments,
    rank_argv,
)
from shoal.plan.parallel import Parallel
from shoal.spec.env import AgentSettings, agent_settings
from shoal.state.status import ExecutorKind, NodeState, NodeStatus, Versions

BOTH = Versions(shoal="0", python="3.12.3", ray="2.60.0", vllm="0.32.0")
BARE = BOTH.model_copy(update={"ray": None})
HEAD, OTHER = "10.0.0.1", "10.0.0.2"
WORDS = ("--model", "/m", "--max-model-len", "512")
PLAIN = NodeStatus(name="w", role="worker", address=OTHER, state=NodeState.UP)
RANK = RankOrder(rank=1, nodes=2, arguments=WORDS, env={"HF_HUB_OFFLINE": "1"})


@pytest.mark.parametrize(
    ("wish", "found", "chosen"),
    [("auto", BOTH, "ray"), ("auto", BARE, "mp"), ("ray", BOTH, "ray"), ("mp", BOTH, "mp"), ("mp", BARE, "mp")],
)
def test_the_executor_is_what_is_installed_unless_it_is_named(wish: str, found: Versions, chosen: str) -> None:
    """Ray where there is one, vLLM's own processes where there is none; a name decides it."""
    assert choose(wish, found).value == chosen


def test_what_an_image_must_bring() -> None:
    """An image without vLLM, or without the Ray that was asked for, is named with what mends it."""
    with pytest.raises(PreconditionFailed, match="there is no vLLM in this image"):
        choose("auto", BOTH.model_copy(update={"vllm": None}))
    with pytest.raises(PreconditionFailed) as without_ray:
        choose("ray", BARE)
    assert str(without_ray.value) == (
        "there is no Ray in this image, beside vLLM 0.32.0\n"
        "why: SHOAL_EXECUTOR=ray: vLLM's ranks on several nodes shall live in Ray\n"
        "fix: set SHOAL_EXECUTOR=mp, or SHOAL_IMAGE to an image with Ray"
    )


def test_an_old_vllm_is_told_by_the_options_that_it_lacks() -> None:
    """The parser of the installed vLLM decides whether it can do without Ray."""
    check_options(frozenset(MP_OPTIONS) | {"model"}, "0.32.0")
    with pytest.raises(PreconditionFailed, match=r"vLLM 0\.10\.1 in this image does not know --nnodes, --headless"):
        check_options(frozenset(MP_OPTIONS) - {"nnodes", "headless"}, "0.10.1")


def test_the_head_is_the_first_node() -> None:
    """Node ranks go to the head, then to the others as they are named; a node without GPUs has no rank."""
    assert order_of([("10.0.0.3", 8), (HEAD, 8), ("10.0.0.9", 0), (OTHER, 8)], HEAD) == (HEAD, "10.0.0.3", OTHER)


@pytest.mark.parametrize(
    ("expect", "world", "told"),
    [
        ([(OTHER, 1)], 1, "SHOAL_EXPECT names no GPU of the head"),
        ([(HEAD, 0), (OTHER, 1)], 1, "SHOAL_EXPECT names no GPU of the head"),
        ([(HEAD, 2), (OTHER, 1)], 3, "3 rank.s. cannot be spread evenly over 10.0.0.1:2, 10.0.0.2:1"),
        ([(HEAD, 3), (OTHER, 1)], 4, "4 rank.s. cannot be spread evenly"),
    ],
)
def test_nodes_that_cannot_share_the_ranks_are_told(expect: list[tuple[str, int]], world: int, told: str) -> None:
    """Without Ray the head has ranks, and each node has as many as the others."""
    with pytest.raises(ConfigError, match=told):
        check_split(expect, HEAD, Parallel(1, world, "x"))


def test_nodes_that_share_the_ranks() -> None:
    """As many ranks on each node as on the others, and no more than it has GPUs."""
    check_split([(HEAD, 8), (OTHER, 8), ("10.0.0.9", 0)], HEAD, Parallel(8, 2, "x"))
    check_split([(HEAD, 8), (OTHER, 2)], HEAD, Parallel(2, 2, "x"))


def test_the_words_of_each_node() -> None:
    """The head and the others are told their place and where they meet; a single node is told nothing."""
    assert node_words(0, 2, f"{HEAD}:6379") == (
        "--nnodes", "2", "--node-rank", "0", "--master-addr", HEAD, "--master-port", "6379",
    )  # fmt: skip
    assert node_words(0, 1, f"{HEAD}:6379") == ()
    assert rank_argv("py", "vllm.entrypoints.cli.main", RANK, "[fd00::1]:6379") == (
        "py", "-m", "vllm.entrypoints.cli.main", "serve", *WORDS, "--headless",
        "--nnodes", "2", "--node-rank", "1", "--master-addr", "fd00::1", "--master-port", "6379",
    )  # fmt: skip


def test_the_api_has_its_words_for_itself() -> None:
    """Ranks elsewhere get the engine's arguments, and nothing of the API's."""
    served = ("--model", "/m", "--host", HEAD, "--port", "8000", "--middleware", "a.B", "--max-model-len", "512")
    assert rank_arguments(served) == WORDS


def test_what_travels_to_other_nodes() -> None:
    """What is the same everywhere and in shoal's table; no address, no device, no secret, nothing of Ray's."""
    env = {"HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": HEAD, "RAY_ADDRESS": f"{HEAD}:6379", "NCCL_IB_HCA": "mlx5_0"}
    assert carried(env | {"HF_TOKEN": "x", "LD_PRELOAD": "x.so", "NCCL_IB_TC": "106"}) == {
        "HF_HUB_OFFLINE": "1",
        "NCCL_IB_TC": "106",
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 0}, "greater than or equal to 1"),
        ({"nodes": 1}, "greater than or equal to 2"),
        ({"arguments": ["--node_rank=3"]}, "is not the supervisor's to say"),
        ({"arguments": ["-n", "3"]}, "is not the supervisor's to say"),
        ({"arguments": ["a\0b"]}, "zero byte"),
        ({"env": {"LD_PRELOAD": "x.so"}}, "LD_PRELOAD does not travel"),
        ({"env": {"VLLM_HOST_IP": HEAD}}, "VLLM_HOST_IP does not travel"),
        ({"argv": ["sh"]}, "Extra inputs are not permitted"),
    ],
)
def test_an_order_that_is_none(changes: dict[str, Any], told: str) -> None:
    """An order says a place, the engine's arguments and what travels: nothing else, and no other program."""
    with pytest.raises(ValidationError, match=told):
        RankOrder.model_validate(RANK.model_dump() | changes)


def settings(**env: str) -> AgentSettings:
    return agent_settings({"RAY_MODE": "worker", "VLLM_HOST_IP": OTHER, "RAY_ADDRESS": f"{HEAD}:6379"} | env)


def test_ranks_have_their_own_nodes_variables() -> None:
    """This node's devices and address stay, what the engine carries is added, no secret is inherited."""
    inherited = {"NCCL_IB_HCA": "mlx5_1", "NCCL_SOCKET_IFNAME": "eth1", "HF_TOKEN": "x", "PYTHONDONTWRITEBYTECODE": "1"}
    assert environment(settings(), inherited, RANK) == {
        "NCCL_IB_HCA": "mlx5_1",
        "NCCL_SOCKET_IFNAME": "eth1",
        "GLOO_SOCKET_IFNAME": "eth1",
        "UCX_NET_DEVICES": "eth1",
        "TP_SOCKET_IFNAME": "eth1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": OTHER,
    }


LOG = """\
(MainProcess pid=7) INFO 11-25 03:30:02 [serve.py:208] Launching vLLM (v0.32.0) headless multiproc executor
(MainProcess pid=7) ERROR 11-25 03:30:26 [multiproc_executor.py:315] Worker proc VllmWorker-1 died unexpectedly (exit \
code: None), shutting down executor.
"""


@pytest.mark.parametrize(
    ("output", "code", "told"),
    [
        (LOG, None, ": Worker proc VllmWorker-1 died unexpectedly (exit code: None)"),
        (f"{LOG}leaked semaphore\n", 0, " (code 0): Worker proc VllmWorker-1 died unexpectedly (exit code: None)"),
        (f"OSError: [Errno 98] in use\n{LOG}", 1, " (code 1): OSError: [Errno 98] in use"),
        ("usage\n\n", 2, " (code 2): usage"),
        ("", -9, " (code -9): it said nothing"),
    ],
)
def test_why_ranks_ended(output: str, code: int | None, told: str) -> None:
    """The first error, else the rank's end as vLLM tells it before its own, else the last line."""
    assert ending(output, code) == f"vLLM's ranks here have ended{told}"


class Beating(Heart):
    """A heart whose head answers what a test says."""

    def __init__(self) -> None:
        super().__init__(f"http://{HEAD}:8700", lambda: NodeStatus.model_validate({}), lambda: None)

    def hear(self, executor: ExecutorKind) -> None:
        self._head = NodeStatus(name="h", role="head", address=HEAD, state=NodeState.UP, executor=executor)
        self.answered = time.monotonic()


Make = Callable[[AgentSettings], tuple[MpExecutor, Beating]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An executor of one node with its heart."""

    def made(settings: AgentSettings) -> tuple[MpExecutor, Beating]:
        who = Who("w", settings.address, None, cpu=True, env={})
        prover, heart = Prover(FakeHost(), who, NcclFiles(tmp_path / "nccl")), Beating()
        return MpExecutor(settings, EventLog(io.StringIO()), prover, heart, lambda _: None, tmp_path, "w"), heart

    return made


async def test_a_worker_is_in_once_the_head_has_heard_of_it(make: Make) -> None:
    """It waits for the head's answer, joins without a process, and is verified by an answer to this stay."""
    executor, heart = make(settings())
    seen = await executor.look(Stage.WAIT_HEAD)
    assert (seen.head_serving, seen.head_reason) == (False, f"its agent at http://{HEAD}:8700 does not answer")
    heart.hear(ExecutorKind.MP)
    assert (await executor.look(Stage.WAIT_HEAD)).head_serving
    executor.begin(1)
    seen = await executor.look(Stage.VERIFY)
    assert (seen.ray_running, seen.verified, executor.pid) == (True, None, None)
    heart.hear(ExecutorKind.MP)
    assert (await executor.look(Stage.VERIFY)).verified
    heart.hear(ExecutorKind.RAY)
    seen = await executor.look(Stage.VERIFY)
    assert (seen.verified, seen.verify_reason) == (
        False,
        "the head's ranks live in ray, this node's in mp (SHOAL_EXECUTOR)",
    )


async def test_each_stay_has_an_id_of_its_own(make: Make) -> None:
    """Who leaves and joins again is another member: the engine's ranks did not survive that."""
    executor, _ = make(settings())
    before = executor.tell(PLAIN)
    executor.begin(1)
    first = executor.tell(PLAIN)
    await executor.end()
    executor.begin(1)
    stays = [status.member for status in (before, first, executor.tell(PLAIN))]
    assert (stays[0], len(set(stays)), first.executor) == (None, 3, ExecutorKind.MP)


async def test_the_head_is_in_at_once(make: Make) -> None:
    """The head waits for nobody, and runs no ranks for the agent: they belong to the API's server."""
    executor, _ = make(settings(RAY_MODE="head", VLLM_HOST_IP=HEAD, RAY_ADDRESS=""))
    executor.begin(1)
    seen = await executor.look(Stage.VERIFY)
    assert (seen.head_serving, seen.ray_running, seen.verified) == (True, True, True)
    with pytest.raises(ShoalError, match="its ranks belong to the API's server"):
        executor.start(RANK)


def test_a_node_that_has_not_joined_starts_no_ranks(make: Make) -> None:
    """An order that comes too early is refused, with the reason."""
    executor, _ = make(settings())
    with pytest.raises(ShoalError, match="this node is not in the cluster now"):
        executor.start(RANK)


async def test_ranks_run_until_they_are_told_to_end(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks are started once; an end on order is no fault, and after it they may be started again."""
    monkeypatch.setattr(module, "rank_argv", lambda python, *_: (python, "-c", "import time; time.sleep(60)"))
    executor, _ = make(settings(SHOAL_RAY_TEMP_DIR=str(tmp_path)))
    executor.begin(1)
    executor.start(RANK)
    first = executor.pid
    assert [process.pid for process in executor.ranks()] == [first]
    with pytest.raises(ShoalError, match=f"ranks run here already, below pid {first}"):
        executor.start(RANK)
    found = executor.ranks()
    executor.release()
    assert await end_all(found, grace=1.0) == []
    assert executor.tell(PLAIN).rank_ended == ""
    executor.start(RANK)
    await executor.end()
    assert (executor.ranks(), executor.running, executor.tell(PLAIN).rank_ended) == ([], False, "")


async def test_ranks_that_end_by_themselves_are_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their end is in the node's status until the supervisor has them ended."""
    monkeypatch.setattr(module, "rank_argv", lambda python, *_: (python, "-c", "raise OSError('no such device')"))
    executor, _ = make(settings(SHOAL_RAY_TEMP_DIR=str(tmp_path)))
    executor.begin(1)
    executor.start(RANK)
    for _ in range(600):
        if executor.tell(PLAIN).rank_ended:
            break
        await asyncio.sleep(0.05)
    assert executor.tell(PLAIN).rank_ended == "vLLM's ranks here have ended (code 1): OSError: no such device"
    assert (executor.ranks(), executor.running) == ([], True)
    executor.release()
    assert executor.tell(PLAIN).rank_ended == ""
