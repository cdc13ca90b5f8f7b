"""The supervisor without Ray: what it orders from other nodes, what it starts itself, what keeps it from starting."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shoal.engine import mp_executor as module
from shoal.engine.clear import Orderer
from shoal.engine.executor import executor_of
from shoal.engine.launch import Request, argv, read_request
from shoal.engine.mp_executor import MpExecutor
from shoal.engine.nodes import Nodes
from shoal.engine.ray_executor import RayExecutor
from shoal.spec.env import serve_settings
from shoal.state.status import ExecutorKind, NodeState, NodeStatus

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
SETTINGS = serve_settings({"VLLM_HOST_IP": A, "SHOAL_EXPECT": f"{C}:1,{A}:1,{B}:1", "SHOAL_STATE_DIR": "/s"})
ALONE = serve_settings({"VLLM_HOST_IP": A, "SHOAL_EXPECT": f"{A}:2"})
WORDS = ("--model", "/m", "--host", A, "--port", "8000", "--middleware", "x.Y", "--max-model-len", "512")
ENV = {"VLLM_HOST_IP": A, "RAY_ADDRESS": f"{A}:6379", "HF_HUB_OFFLINE": "1"}
REQUEST = Request("m", f"http://{A}:8000/v1", WORDS, ENV, executor=ExecutorKind.MP)


class Orders(Orderer):
    """Orders that are kept, and answered as a test says."""

    def __init__(self, answers: dict[str, Any] | None = None, key: str | None = "k") -> None:
        super().__init__(8700, lambda: key)
        self.given: dict[tuple[str, str], Any] = {}
        self._answers = answers or {}

    async def one(self, address: str, order: str, body: object, patience: aiohttp.ClientTimeout) -> Any:
        del patience
        self.given[address, order] = body
        await asyncio.sleep(0)
        return self._answers.get(address)


def made(orders: Orders) -> MpExecutor:
    return MpExecutor(SETTINGS, REQUEST, {"NCCL_IB_HCA": "mlx5_0", "HF_TOKEN": "x"}, orders)


async def told(executor: MpExecutor) -> str:
    """What the executor says once all its orders were answered."""
    executor.begin(Nodes(30.0), Path("/unused"))
    for _ in range(10):
        await asyncio.sleep(0)
    return executor.trouble()


async def test_every_other_node_is_told_its_place() -> None:
    """The head is the first node; the others get their ranks in the order in which they are named."""
    orders = Orders()
    executor = made(orders)
    assert await told(executor) == ""
    same = {"nodes": 3, "arguments": ("--model", "/m", "--max-model-len", "512"), "env": {"HF_HUB_OFFLINE": "1"}}
    assert orders.given == {(C, "start"): {"rank": 1, **same}, (B, "start"): {"rank": 2, **same}}
    assert argv("py", REQUEST, executor.words())[-8:] == (
        "--nnodes", "3", "--node-rank", "0", "--master-addr", A, "--master-port", "6379",
    )  # fmt: skip
    await executor.end()


async def test_a_node_that_does_not_start_its_ranks_is_named() -> None:
    """A refusal, and an agent that does not answer, are the reason why the start ends; an end forgets them."""
    executor = made(
        Orders({B: ValueError("its agent answers 409: this node is not in the cluster now"), C: TimeoutError()})
    )
    assert await told(executor) == (
        f"{C} does not start its ranks: TimeoutError; "
        f"{B} does not start its ranks: its agent answers 409: this node is not in the cluster now"
    )
    await executor.end()
    assert executor.trouble() == ""


def test_without_a_key_the_gate_stays_shut() -> None:
    """No agent takes an order without the key; a node that is alone needs none."""
    assert made(Orders()).shut() == ""
    assert (
        made(Orders(key=None)).shut().startswith("there is no token here to give orders with: set RAY_AUTH_TOKEN_PATH")
    )
    assert MpExecutor(ALONE, REQUEST, {}, Orders(key=None)).shut() == ""
    assert MpExecutor(ALONE, REQUEST, {}, Orders(key=None)).words() == ()


def test_the_server_has_its_nodes_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's ranks are its children: they have its devices and no secret; NCCL tells where its agent looks."""
    monkeypatch.setattr(module, "is_cpu_build", lambda: False)
    head = NodeStatus(name="h", role="head", address=A, state=NodeState.UP, stay_id="1")
    env = made(Orders()).environment(Nodes(30.0).asked({A: head}, 0.0))
    assert env == ENV | {
        "NCCL_IB_HCA": "mlx5_0",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET,ENV",
        "NCCL_DEBUG_FILE": "/s/nccl/h/%h.%p.log",
    }


def test_the_request_says_which_executor_it_is(tmp_path: Path) -> None:
    """A request keeps its executor in its file; one from before there was a choice is Ray's."""
    file = tmp_path / "engine.json"
    file.write_text(REQUEST.to_json())
    assert read_request(str(file)) == REQUEST
    file.write_text('{"model": "m", "endpoint": "e", "arguments": [], "env": {}}')
    assert read_request(str(file)).executor is ExecutorKind.RAY
    kinds = [type(executor_of(SETTINGS, one, {}, Orders())) for one in (REQUEST, read_request(str(file)))]
    assert kinds == [MpExecutor, RayExecutor]
