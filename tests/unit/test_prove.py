"""`shoal prove` as its users call it, with agents that say what they are told to."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result
from tests.unit.test_proof import GIB, node, port, rank

from shoal.bench.counters import NodeProof
from shoal.engine.client import Piece
from shoal.ops import prove
from shoal.ops.reach import reach
from shoal.ops.where import Reach
from shoal.spec.environ import environ
from shoal.state.status import EngineState, EngineStatus
from shoal.ui.cli import main

EXPECT = {"RAY_ADDRESS": "10.0.0.1:6379", "VLLM_HOST_IP": "10.0.0.1", "SHOAL_EXPECT": "10.0.0.1:1,10.0.0.2:1"}
Looks = list[tuple[NodeProof | str, ...]]


class Cluster:
    """Two agents, and the command line in the head's container."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: Looks = []
        self._env = EXPECT | {"SHOAL_STATE_DIR": str(folder), "SHOAL_CACHE_DIR": str(folder)}
        monkeypatch.setattr(prove, "ask_proofs", self._ask)

    async def _ask(self, addresses: Sequence[str], port: int, key: str | None) -> dict[str, NodeProof | str]:
        assert (tuple(addresses), port, key) == (("10.0.0.1", "10.0.0.2"), 8700, None)
        return dict(zip(addresses, self.looks.pop(0), strict=True))

    def __call__(self, *words: str, **env: str) -> Result:
        result = CliRunner().invoke(main, ["prove", *words], prog_name="shoal", env=self._env | env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def both(moved: int) -> tuple[NodeProof, ...]:
    # A dead rank that used sockets: traffic of a command is not the engine's, nor is the verdict.
    old = (rank(0, "Socket"),)
    return tuple(node(at, port(sent=moved, received=moved), processes=old) for at in (1, 2))


TRAFFIC = ("--bytes", "1G", "--", sys.executable, "-c", "print('moving')")


def test_a_command_is_the_traffic(cluster: Cluster) -> None:
    """Counters before and after the command, what it said, the verdict, and the exit code of a proof."""
    cluster.looks = [both(0), both(GIB)]
    told = cluster(*TRAFFIC)
    assert (told.exit_code, told.stderr) == (0, "moving\n")
    assert told.stdout.splitlines()[0] == "proven: over RDMA: each HCA carried its share"


def test_the_document_says_the_same(cluster: Cluster) -> None:
    """`--json` has the verdict, and the exit code tells that nothing is proven."""
    cluster.looks = [both(0), both(0)]
    told = cluster("--json", *TRAFFIC)
    document = json.loads(told.stdout)
    assert (told.exit_code, document["verdict"], document["proven"]) == (1, "tcp", False)
    assert [(row["node"], row["seen"], row["verdict"]) for row in document["rows"]] == [
        ("n1", 0, "idle"),
        ("n2", 0, "idle"),
    ]


def test_without_anything_to_prove_no_traffic_is_driven(cluster: Cluster) -> None:
    """A cluster on CPUs is told as one, by a single look."""
    cluster.looks = [(node(1, cpu=True), node(2, cpu=True))]
    told = cluster()
    assert (told.exit_code, cluster.looks) == (1, [])
    assert told.stdout == (
        "not proven: vLLM is a CPU build here: its ranks have no NCCL, and their tensors go over TCP, by Gloo\n"
    )


class Client:
    """An engine whose every answer has three pieces."""

    def __init__(self, endpoint: str, key: str, model: str) -> None:
        assert (endpoint, key, model) == ("http://10.0.0.1:8000/v1", "", "m")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def stream(self, question: str, *, max_tokens: int, temperature: float) -> AsyncIterator[Piece]:
        assert (bool(question), max_tokens, temperature) == (True, 256, 0.8)
        for word in ("one", "two", "three"):
            yield Piece(word)


def serving(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    async def engine(_: Reach) -> EngineStatus:
        return EngineStatus(state=state, model="m", detail="still loading")

    monkeypatch.setattr(prove, "engine", engine)
    monkeypatch.setattr(prove, "EngineClient", Client)


def test_an_engine_that_serves_is_the_traffic(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own answers move the bytes; its living ranks say how, and an idle rail is no fault."""
    serving(monkeypatch, EngineState.READY)
    live = (rank(0, gdr=True),)
    cluster.looks = [
        tuple(node(at, port(), port("mlx5_1"), processes=live) for at in (1, 2)),
        tuple(node(at, port(sent=GIB), port("mlx5_1"), processes=live) for at in (1, 2)),
    ]
    told = cluster("--seconds", "0.05")
    assert (told.exit_code, told.stderr) == (0, "8 long answers for 0.05 s\n")
    assert told.stdout.splitlines()[0] == "proven: over RDMA: RDMA bytes moved on every node"


def test_an_engine_that_does_not_serve_is_no_traffic(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name, it is refused with what it waits for."""
    serving(monkeypatch, EngineState.STARTING)
    cluster.looks = [both(0)]
    told = cluster("--traffic", "engine")
    assert (told.exit_code, "still loading" in told.output) == (5, True)


def test_a_command_that_fails_proves_nothing(cluster: Cluster) -> None:
    """What failed is told with its last words, and the counters are not judged."""
    cluster.looks = [both(0)]
    told = cluster("--bytes", "1G", "--", sys.executable, "-c", "raise SystemExit('no route')")
    assert (told.exit_code, "failed, and nothing is proven" in told.output, "no route" in told.output) == (
        1,
        True,
        True,
    )


def test_an_agent_that_does_not_answer_is_named(cluster: Cluster) -> None:
    """Without every node's counters there is no proof."""
    cluster.looks = [(both(0)[0], "its agent: connection refused")]
    told = cluster(*TRAFFIC)
    assert (told.exit_code, "10.0.0.2: its agent: connection refused" in " ".join(told.output.split())) == (3, True)


@pytest.mark.parametrize("words", [("--bytes", "1G"), ("true",), ("--bytes", "much", "true")])
def test_a_wrong_call_is_refused(cluster: Cluster, words: tuple[str, ...]) -> None:
    """An amount without a command, a command without an amount, an amount that is none."""
    assert cluster(*words).exit_code == 2


def test_where_nothing_is_up_there_is_nothing_to_ask(cluster: Cluster) -> None:
    """Neither a local cluster nor the head's container: exit code 4."""
    assert cluster(SHOAL_EXPECT="").exit_code == 4


def test_the_heads_container_knows_its_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Agents, supervisor and API as the container's environment has them; a head without a GPU has no rank."""
    for name, value in (EXPECT | {"SHOAL_EXPECT": "10.0.0.1:0,10.0.0.2:1", "SHOAL_API_HOST": "0.0.0.0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SHOAL_STATE_DIR", str(tmp_path))
    assert reach(environ()) == Reach(
        ("10.0.0.2",), 8700, None, "http://10.0.0.1:8701", "http://127.0.0.1:8000/v1", "", ""
    )
