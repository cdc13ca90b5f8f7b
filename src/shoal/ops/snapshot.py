"""The cluster as it is now: every agent and the supervisor asked at once, one document out."""

import asyncio
import time

import aiohttp

from shoal.engine.agents import ask_agents
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import (
    ClusterState,
    ClusterStatus,
    EngineState,
    EngineStatus,
    NodeState,
    NodeStatus,
    judge,
)

# Longer than the supervisor's own quick probe: it answers "no token", rather than not at all.
PATIENCE = aiohttp.ClientTimeout(total=8.0)
# A process that was started a moment ago may still be loading: silent, not lost.
YOUNG = 20.0


def snapshot(run: RunRecord | None, cluster: str = "local") -> ClusterStatus:
    """The status of the run, or of the cluster that is down."""
    if run is None:
        return ClusterStatus(cluster=cluster, state=ClusterState.DOWN)
    nodes, engine = asyncio.run(_gather(run, young=time.time() - run.created < YOUNG))
    return ClusterStatus(
        cluster=run.cluster,
        state=judge(nodes, engine),
        endpoint=run.endpoint,
        api_key_file=run.api_key_file,
        nodes=nodes,
        engine=engine,
    )


async def _gather(run: RunRecord, *, young: bool) -> tuple[tuple[NodeStatus, ...], EngineStatus]:
    port = int(run.nodes[0].agent_url.rpartition(":")[2])
    answers, engine = await asyncio.gather(
        ask_agents([node.address for node in run.nodes], port), _ask_engine(run, young=young)
    )
    return tuple(_node(node, answers[node.address], young=young) for node in run.nodes), engine


def _node(node: NodeRecord, answer: NodeStatus | str, *, young: bool) -> NodeStatus:
    if isinstance(answer, NodeStatus):
        return answer
    return NodeStatus(
        name=node.name,
        role="head" if node.role == "head" else "worker",
        address=node.address,
        state=NodeState.STARTING if young else NodeState.LOST,
        detail="" if young else f"its agent: {answer}",
        gpus=node.gpus,
    )


async def _ask_engine(run: RunRecord, *, young: bool) -> EngineStatus:
    url = f"{run.serve_url}/status"
    try:
        async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False) as http, http.get(url) as reply:
            return EngineStatus.model_validate_json(await reply.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = f"its supervisor does not answer: {str(error) or type(error).__name__}"
        state = EngineState.WAITING if young else EngineState.UNREADY
        return EngineStatus(state=state, model=run.model, detail=why)
