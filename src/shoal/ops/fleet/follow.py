"""A cluster on other machines watched while it comes up: by its head's word, and by what still runs on each host."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.engine.client import Answer
from shoal.errors import HostError, ShoalError, StartFailed
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.send import carry_out
from shoal.ops.bringup import QUESTION
from shoal.ops.fleet import reach
from shoal.ops.fleet.lock import Lock
from shoal.plan.fleet import FleetPlan
from shoal.plan.fleet_node import project
from shoal.state.standing import Standing
from shoal.state.status import ClusterState, ClusterStatus, EngineState, NodeState

PACE = 1.0
LOOK_EVERY = 8.0
SILENT = 60.0  # seconds that the head itself may not answer


@dataclass(frozen=True)
class Watch:
    """What is watched, since when, and how long it is given."""

    plan: FleetPlan
    hosts: Mapping[str, Host]
    show: Callable[[ClusterStatus], None]
    patience: float
    lock: Lock


def until_ready(watch: Watch) -> ClusterStatus:
    """Show the status until a token can be produced.

    Raises:
        StartFailed: it will not come to that, or did not in time; all is left as it is, for it goes on trying.
        HostError: the head does not answer any more.
    """
    began, heard, looked = time.monotonic(), time.monotonic(), time.monotonic()
    created, head = time.time(), watch.hosts[watch.plan.head.name]
    said = "nothing yet"
    while True:
        try:
            watch.lock.take()
            status = reach.status(head, watch.plan, created)
        except HostError as error:
            # The agent's container may not be there yet; a host that is gone is not waited for.
            if time.monotonic() - heard > SILENT:
                raise
            said = error.what
        else:
            heard = time.monotonic()
            watch.show(status)
            if status.state is ClusterState.READY or status.serves_over_tcp:
                return status
            said = _hopeless(status) or _detail(status)
            if _hopeless(status):
                raise StartFailed("the cluster did not come up", why=said)
        now = time.monotonic()
        if now - looked > LOOK_EVERY:
            looked = now
            _still_run(watch)
        if now - began > watch.patience:
            raise StartFailed(f"no token within {watch.patience:g} s", why=said)
        time.sleep(PACE)


def _detail(status: ClusterStatus) -> str:
    words = [f"{node.name}: {node.detail or node.stage}" for node in status.nodes if node.state is not NodeState.UP]
    engine = [status.engine.detail or status.engine.phase] if status.engine else []
    return "; ".join([*words, *engine])


def _hopeless(status: ClusterStatus) -> str:
    failed = [f"{node.name}: {node.detail}" for node in status.nodes if node.state is NodeState.FAILED]
    if status.engine is not None and status.engine.state is EngineState.FAILED:
        failed.append(status.engine.detail)
    return "; ".join(failed)


def _still_run(watch: Watch) -> None:
    """Raise where a program that was started has ended, with its last words."""
    plan = watch.plan
    there = [watch.hosts[node.name] for node in plan.nodes]
    step = {"do": "look", "project": project(plan.cluster)}

    def work(host: Host) -> list[str]:
        node = plan.node(host.name)
        assert node is not None  # the hosts are the plan's
        standing = Standing.model_validate(carry_out(host, node.root, [step])[0])
        return [_last_words(plan, host, node.root, unit.name) for unit in node.units
                if not standing.unit(unit.name).runs]  # fmt: skip

    answers = fanout(there, work, deadline=60)
    ended = [words for answer in answers if not isinstance(answer, ShoalError) for words in answer]
    if ended:
        raise StartFailed("the cluster did not come up", why="; ".join(ended))


def _last_words(plan: FleetPlan, host: Host, root: str, unit: str) -> str:
    if plan.runtime == "compose":
        return f"{host.name}: the container of {unit} does not run"
    lines = carry_out(host, root, [{"do": "tail", "path": f"logs/{unit}.log", "lines": 1}])[0]
    return f"{host.name}: {unit} has ended: {' '.join(lines) or 'it said nothing'}"


def first_answer(watch: Watch) -> tuple[str, Answer]:
    """What was asked, and what the model answered."""
    return QUESTION, reach.ask(watch.hosts[watch.plan.head.name], watch.plan, QUESTION)
