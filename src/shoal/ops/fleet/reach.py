"""What is asked of a cluster on other machines: over ssh, on its head, by the program ``shoal relay`` there."""

import json
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shoal.engine.client import Answer
from shoal.errors import CommandFailed, ShoalError
from shoal.host.base import Host
from shoal.host.wrap import container
from shoal.ops.relay import MARK
from shoal.plan.container import PYZ as INSIDE_PYZ
from shoal.plan.container import STATE as INSIDE
from shoal.plan.fleet import API_KEY, CURRENT, PYZ, STATE, FleetPlan, NodeDeployment
from shoal.plan.fleet_node import GCS_PORT
from shoal.plan.fleet_node import container as container_name
from shoal.state.live import ClusterLive
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import ClusterStatus

PATIENCE = 30.0
ANSWERS_WITHIN = 320.0
D = TypeVar("D", bound=BaseModel)


def record(plan: FleetPlan, created: float, *, api_key_file: str = "") -> RunRecord:
    """The cluster as a record; the key's file is the head's own unless another is named."""
    head = plan.head
    state = INSIDE if plan.runtime == "compose" else f"{head.root}/{STATE}"
    nodes = (head, *plan.workers)
    shown = f"[{head.address}]" if ":" in head.address else head.address
    return RunRecord(
        run_id=plan.digest,
        boot_id="",
        cluster=plan.cluster,
        created=created,
        model=plan.model,
        endpoint=plan.endpoint,
        serve_url=f"http://{shown}:{plan.serve_port}",
        temp_dir=head.temp,
        log_dir=f"{head.root}/logs",
        api_key_file=api_key_file or f"{state}/{API_KEY}",
        ray_address=f"{shown}:{GCS_PORT}",
        nodes=tuple(
            NodeRecord(
                name=node.name,
                role=node.role,
                address=node.address,
                gpus=node.gpus,
                agent_url=f"http://{f'[{node.address}]' if ':' in node.address else node.address}:{plan.agent_port}",
            )
            for node in nodes
        ),
    )


def status(host: Host, plan: FleetPlan, created: float = 0.0, node: NodeDeployment | None = None) -> ClusterStatus:
    """The cluster's status, as its head gathers it; or another node, where that one is asked.

    Raises:
        HostError: the host, or its agent's container, could not be asked.
    """
    keeper = node or plan.head
    state = INSIDE if plan.runtime == "compose" else f"{keeper.root}/{STATE}"
    question = {"record": record(plan, created, api_key_file=f"{state}/{API_KEY}").model_dump(mode="json")}
    return _part(host, _ask(host, plan, question, PATIENCE, keeper), "status", ClusterStatus)


def live(head: Host, plan: FleetPlan) -> ClusterLive:
    """All that moves in the cluster, as its head's agent puts it together.

    Raises:
        ShoalError: the head's agent does not answer, or the head could not be asked.
    """
    question = {"record": record(plan, 0).model_dump(mode="json"), "live": True}
    return _part(head, _ask(head, plan, question, PATIENCE, plan.head), "live", ClusterLive)


def ask(head: Host, plan: FleetPlan, question: str, max_tokens: int = 64) -> Answer:
    """The model's answer.

    Raises:
        ShoalError: it does not answer, or the head could not be asked.
    """
    began = time.time()
    asked = {"record": record(plan, 0).model_dump(mode="json"), "ask": question, "max_tokens": max_tokens}
    found = _ask(head, plan, asked, ANSWERS_WITHIN, plan.head)["answer"]
    return Answer(str(found["text"]), int(found["tokens"]), float(found.get("seconds") or time.time() - began))


def _part(host: Host, told: Mapping[str, Any], name: str, kind: type[D]) -> D:
    """A part of an answer. The release that runs there may be another version's."""
    try:
        return kind.model_validate(told.get(name))
    except ValidationError as error:
        raise _foreign(host, str(error).splitlines()[0]) from error


def _foreign(host: Host, why: str) -> CommandFailed:
    what = f"{host.name}: shoal relay answers, but not as one of this version"
    return CommandFailed(what, why=why, fix="shoal up   # brings this version there")


def _ask(
    host: Host, plan: FleetPlan, question: Mapping[str, Any], timeout: float, node: NodeDeployment
) -> dict[str, Any]:
    place, argv = relay(host, plan, node)
    result = place.run(argv, timeout=timeout, ok=range(256), input=json.dumps(question))
    line = next((line for line in result.out.splitlines() if line.startswith(MARK)), "")
    if not line:
        said = (result.err or result.out).strip().splitlines()[-1:] or ["it printed nothing"]
        raise CommandFailed(f"{host.name}: shoal relay ended with code {result.code}", why=said[0])
    try:
        told = dict(json.loads(line.removeprefix(MARK)))
    except (ValueError, TypeError) as wrong:
        raise _foreign(host, f"it printed {line[:80]!r}") from wrong
    if error := told.get("error"):
        raise ShoalError(error["what"], why=error["why"], fix=error["fix"])
    return told


def relay(host: Host, plan: FleetPlan, node: NodeDeployment | None = None) -> tuple[Host, tuple[str, ...]]:
    """Where on that node, by default the head, the question is asked, and by which command."""
    node = node or plan.head
    if plan.runtime == "compose":
        return container(host, container_name("agent", node.role)), ("python3", INSIDE_PYZ, "relay")
    return host, (plan.python, f"{node.root}/{CURRENT}/{PYZ}", "relay")
