"""The cluster as it is now: every agent and the supervisor asked at once, one document out."""

import asyncio
import time
from pathlib import Path

import aiohttp

from shoal.agent.key import bearer, cluster_key
from shoal.agent.talk import PEERS
from shoal.engine.agents import ask_agents, is_silence
from shoal.host.local import LocalHost
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
QUICK = aiohttp.ClientTimeout(total=1.5)
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
        page=run.page,
        nodes=nodes,
        engine=engine,
    )


async def _gather(run: RunRecord, *, young: bool) -> tuple[tuple[NodeStatus, ...], EngineStatus]:
    port = int(run.nodes[0].agent_url.rpartition(":")[2])
    answers, engine, heard = await asyncio.gather(
        ask_agents([node.address for node in run.nodes], port), _ask_engine(run, young=young), _ask_head(run)
    )
    nodes = tuple(_node(node, answers[node.address], heard.get(node.address), young=young) for node in run.nodes)
    return nodes, engine


def _node(node: NodeRecord, answer: NodeStatus | str, heard: NodeStatus | None, *, young: bool) -> NodeStatus:
    """The node as its agent says; a silent one as the head's agent knows it, which has listened all the time."""
    if isinstance(answer, NodeStatus):
        return answer
    blank = NodeStatus(
        name=node.name, role="head" if node.role == "head" else "worker", address=node.address,
        state=NodeState.STARTING, gpus=node.gpus,
    )  # fmt: skip
    if young:
        return blank
    # An agent that has ended took its Ray with it. Silence alone is no loss yet.
    state = NodeState.SUSPECT if is_silence(answer) else NodeState.LOST
    if heard is not None and heard.state is NodeState.LOST:
        state = heard.state
    return (heard or blank).model_copy(update={"state": state, "detail": f"its agent: {answer}"})


async def _ask_head(run: RunRecord) -> dict[str, NodeStatus]:
    """By address: what the head's agent has heard of the other nodes; nothing where it does not answer."""
    url, key = f"{run.nodes[0].agent_url}/peers", cluster_key(LocalHost(), {"RAY_AUTH_TOKEN_PATH": token_file(run)})
    try:
        async with (
            aiohttp.ClientSession(timeout=QUICK, trust_env=False) as http,
            http.get(url, headers=bearer(key)) as reply,
        ):
            known = PEERS.validate_json(await reply.text()) if reply.status == 200 else ()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return {}
    return {node.address: node for node in known}


def token_file(run: RunRecord) -> str:
    """The token of the run's Ray."""
    return str(Path(run.api_key_file).with_name("ray.token"))


async def _ask_engine(run: RunRecord, *, young: bool) -> EngineStatus:
    url = f"{run.serve_url}/status"
    try:
        async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False) as http, http.get(url) as reply:
            return EngineStatus.model_validate_json(await reply.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = f"its supervisor does not answer: {str(error) or type(error).__name__}"
        state = EngineState.WAITING if young else EngineState.UNREADY
        return EngineStatus(state=state, model=run.model, detail=why)
