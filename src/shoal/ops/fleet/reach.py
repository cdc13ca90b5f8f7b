"""What is asked of a cluster on other machines: over ssh, on its head, by the program ``shoal relay`` there."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shoal import errors
from shoal.bench.proof import Proof
from shoal.engine.client import Answer
from shoal.errors import CommandFailed, ShoalError
from shoal.host.base import Host
from shoal.host.wrap import container
from shoal.ops.prove import COMMAND_SECONDS, Wish
from shoal.ops.relay import MARK
from shoal.plan.container import PYZ as INSIDE_PYZ
from shoal.plan.container import STATE as INSIDE
from shoal.plan.fleet import API_KEY, CURRENT, PYZ, STATE, FleetPlan, NodeDeployment
from shoal.plan.fleet_node import GCS_PORT
from shoal.plan.fleet_node import container as container_name
from shoal.state.journal import Entry
from shoal.state.live import ClusterLive
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import ClusterStatus, EngineStatus

PATIENCE = 30.0
STACKS_WITHIN = 90.0
ANSWERS_WITHIN = 320.0
D = TypeVar("D")


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
    return _part(host, _ask(host, plan, _seen_from(plan, keeper, created), PATIENCE, keeper), "status", ClusterStatus)


def _seen_from(plan: FleetPlan, node: NodeDeployment, created: float = 0.0) -> dict[str, Any]:
    """The record for a question to that node: keys and journals are looked for where it has them."""
    state = INSIDE if plan.runtime == "compose" else f"{node.root}/{STATE}"
    return {"record": record(plan, created, api_key_file=f"{state}/{API_KEY}").model_dump(mode="json")}


def live(head: Host, plan: FleetPlan) -> ClusterLive:
    """All that moves in the cluster, as its head's agent puts it together.

    Raises:
        ShoalError: the head's agent does not answer, or the head could not be asked.
    """
    question = _seen_from(plan, plan.head) | {"live": True}
    return _part(head, _ask(head, plan, question, PATIENCE, plan.head), "live", ClusterLive)


def engine(head: Host, plan: FleetPlan) -> EngineStatus:
    """The engine, as its supervisor says.

    Raises:
        NotRunning: the supervisor does not answer.
        HostError: the head could not be asked.
    """
    question = _seen_from(plan, plan.head) | {"engine": True}
    return _part(head, _ask(head, plan, question, PATIENCE, plan.head), "engine", EngineStatus)


def restart(head: Host, plan: FleetPlan, how: str) -> None:
    """Have the head order a restart of the engine.

    Raises:
        ShoalError: the supervisor refuses or does not answer, or the head could not be asked.
    """
    question = _seen_from(plan, plan.head) | {"restart": how}
    _part(head, _ask(head, plan, question, PATIENCE, plan.head), "ordered", bool)


def events(host: Host, plan: FleetPlan, node: NodeDeployment, since: float) -> list[Entry]:
    """What the journals of a node remember since that moment.

    Raises:
        HostError: the host, or its agent's container, could not be asked.
    """
    question = _seen_from(plan, node) | {"events": since}
    return _part(host, _ask(host, plan, question, PATIENCE, node), "events", list[Entry])


def prove(head: Host, plan: FleetPlan, wish: Wish) -> tuple[Proof, list[str]]:
    """The head's verdict on the traffic, and what was said on the way to it.

    Raises:
        ShoalError: the traffic could not be driven, or a node could not be asked.
    """
    question = _seen_from(plan, plan.head) | {"prove": asdict(wish)}
    told = _ask(head, plan, question, COMMAND_SECONDS, plan.head)
    found = _part(head, told, "proof", dict[str, Any])
    return _part(head, found, "found", Proof), _part(head, found, "said", list[str])


def autopsy(host: Host, plan: FleetPlan, node: NodeDeployment) -> str:
    """Where all ranks stand, as that node heard it of all agents: one page.

    Raises:
        HostError: the host, or its agent's container, could not be asked.
    """
    question = _seen_from(plan, node) | {"autopsy": True}
    return _part(host, _ask(host, plan, question, STACKS_WITHIN, node), "page", str)


def ask(head: Host, plan: FleetPlan, question: str, max_tokens: int = 64, temperature: float = 0.0) -> Answer:
    """The model's answer.

    Raises:
        ShoalError: it does not answer, or the head could not be asked.
    """
    began = time.time()
    asked = _seen_from(plan, plan.head) | {"ask": question, "max_tokens": max_tokens, "temperature": temperature}
    found = _ask(head, plan, asked, ANSWERS_WITHIN, plan.head)["answer"]
    return Answer(str(found["text"]), int(found["tokens"]), float(found.get("seconds") or time.time() - began))


def _part(host: Host, told: Mapping[str, Any], name: str, kind: type[D]) -> D:
    """A part of an answer. The release that runs there may be another version's."""
    try:
        return TypeAdapter(kind).validate_python(told.get(name))
    except ValidationError as error:
        raise _foreign(host, str(error).splitlines()[0]) from error


def _error(told: Mapping[str, str]) -> ShoalError:
    """An error that was met there, of its own kind: its exit code is that kind's."""
    found = getattr(errors, told.get("kind", ""), None)
    kind = found if isinstance(found, type) and issubclass(found, ShoalError) else ShoalError
    return kind(told["what"], why=told["why"], fix=told["fix"])


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
        raise _error(error)
    return told


def relay(host: Host, plan: FleetPlan, node: NodeDeployment | None = None) -> tuple[Host, tuple[str, ...]]:
    """Where on that node, by default the head, the question is asked, and by which command."""
    node = node or plan.head
    if plan.runtime == "compose":
        return container(host, container_name("agent", node.role)), ("python3", INSIDE_PYZ, "relay")
    return host, (plan.python, f"{node.root}/{CURRENT}/{PYZ}", "relay")
