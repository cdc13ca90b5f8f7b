"""The endpoints of agent and supervisor, asked in process."""

import pytest
from starlette.testclient import TestClient

from shoal.agent.app import agent_app
from shoal.engine.app import engine_app
from shoal.state.live import EngineLive
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

NODE = NodeStatus(name="w", role="worker", address="10.0.0.2", state=NodeState.UP, gpus=2, restarts=1)
ENGINE = EngineStatus(state=EngineState.READY, model="m", phases={"gate": 1.5}, last_token_age_s=0.2)


def of_node(node: NodeStatus) -> TestClient:
    return TestClient(agent_app(lambda: node))


def of_engine(engine: EngineStatus) -> TestClient:
    async def ask() -> EngineStatus:
        return engine

    def live() -> EngineLive:
        return EngineLive(engine=engine, at=1.0)

    return TestClient(engine_app(ask, live, lambda: engine.detail if engine.state is EngineState.FAILED else ""))


@pytest.mark.parametrize("client", [of_node(NODE), of_engine(ENGINE)], ids=["agent", "supervisor"])
def test_alive_and_ready(client: TestClient) -> None:
    """A program that lives says ok, and one whose work is done says ready."""
    assert (client.get("/healthz").status_code, client.get("/readyz").text) == (200, "ready\n")


def test_not_ready_says_why() -> None:
    """A node or an engine that is not ready answers 503 with its state and the reason."""
    node = of_node(NODE.model_copy(update={"state": NodeState.WAITING, "detail": "no head"})).get("/readyz")
    engine = of_engine(ENGINE.model_copy(update={"state": EngineState.UNREADY, "detail": "no token"})).get("/readyz")
    assert [(reply.status_code, reply.text) for reply in (node, engine)] == [
        (503, "waiting: no head\n"),
        (503, "unready: no token\n"),
    ]


def test_a_program_that_gave_up_is_unhealthy_and_says_why() -> None:
    """`/healthz` of a node or an engine that has given up is 503 with the reason: a container shows it as unhealthy."""
    node = of_node(NODE.model_copy(update={"state": NodeState.FAILED, "detail": "no driver"})).get("/healthz")
    engine = of_engine(ENGINE.model_copy(update={"state": EngineState.FAILED, "detail": "no model"})).get("/healthz")
    assert [(reply.status_code, reply.text) for reply in (node, engine)] == [
        (503, "failed: no driver\n"),
        (503, "failed: no model\n"),
    ]


def test_the_document_is_the_status() -> None:
    """What `/status` says can be read back as the same status."""
    assert NodeStatus.model_validate_json(of_node(NODE).get("/status").text) == NODE
    assert EngineStatus.model_validate_json(of_engine(ENGINE).get("/status").text) == ENGINE


def test_the_engine_s_live_document() -> None:
    """What the supervisor's `/live` says can be read back."""
    assert EngineLive.model_validate_json(of_engine(ENGINE).get("/live").text) == EngineLive(engine=ENGINE, at=1.0)


def test_nothing_else_is_served() -> None:
    """The endpoint has no other path, and takes no orders."""
    assert of_node(NODE).get("/docs").status_code == 404
    assert of_engine(ENGINE).post("/status").status_code == 405
