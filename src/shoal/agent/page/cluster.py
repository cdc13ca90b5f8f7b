"""The whole cluster, put together on the head from what each agent and the supervisor say. Pure."""

import ipaddress
from collections.abc import Mapping, Sequence

from shoal.state.journal import Entry
from shoal.state.live import ClusterLive, EngineLive, EventLive, HcaLive, NodeLive, RailLive
from shoal.state.status import ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus, judge
from shoal.state.verdict import verdict

Lives = Mapping[str, NodeLive]
MOST_EVENTS = 60


def rails(before: Lives, now: Lives) -> tuple[RailLive, ...]:
    """What each port carried between two readings of its node, by the node's own clock."""
    out: list[RailLive] = []
    for address, live in now.items():
        old = before.get(address)
        ports = {(hca.device, hca.port): hca for hca in old.hcas} if old else {}
        seconds = live.at - old.at if old else 0.0
        out += [_rail(live.node.name, ports.get((hca.device, hca.port)), hca, seconds) for hca in live.hcas]
    return tuple(out)


def _rail(node: str, before: HcaLive | None, now: HcaLive, seconds: float) -> RailLive:
    blank = RailLive(node=node, device=now.device, port=now.port)
    if before is None or seconds <= 0:
        return blank
    grown = {name: total - before.errors.get(name, total) for name, total in now.errors.items()}
    return blank.model_copy(
        update={
            "received_gbps": _gbps(before.received_bytes_total, now.received_bytes_total, seconds),
            "sent_gbps": _gbps(before.sent_bytes_total, now.sent_bytes_total, seconds),
            "errors_moved": {name: moved for name, moved in grown.items() if moved > 0},
        }
    )


def _gbps(before: int | None, now: int | None, seconds: float) -> float | None:
    """None where there is no count, or where it began anew meanwhile."""
    if before is None or now is None or now < before:
        return None
    return round((now - before) * 8 / seconds / 1e9, 3)


def nodes(
    own: NodeStatus, heard: Sequence[NodeStatus], expected: Mapping[str, int], told: Lives
) -> tuple[NodeStatus, ...]:
    """All nodes, the head first: as the head's agent judges them, so that a silent one is suspect.

    An expected one that was never heard is waited for.
    """
    known = {status.address: status for status in (own, *heard)}
    for address, gpus in expected.items():
        if address not in known:
            known[address] = told[address].node if address in told else _unheard(address, gpus)
    rest = sorted(set(known) - {own.address}, key=_number)
    return tuple(known[address] for address in (own.address, *rest))


def _number(address: str) -> tuple[int, int, str]:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return 0, 0, address
    return found.version, int(found), address


def _unheard(address: str, gpus: int) -> NodeStatus:
    return NodeStatus(
        name=address,
        role="worker",
        address=address,
        state=NodeState.WAITING,
        detail="its agent has not been heard yet",
        gpus=gpus,
    )


def silent_engine(last: EngineStatus | None, why: str) -> EngineStatus:
    """The engine whose supervisor does not answer."""
    words = f"its supervisor does not answer: {why}"
    if last is None:
        return EngineStatus(state=EngineState.UNREADY, model="", detail=words)
    return last.model_copy(update={"state": EngineState.UNREADY, "detail": words, "phase": ""})


def whole(
    at: float,
    status: ClusterStatus,
    lives: tuple[Lives, Lives],
    engine: EngineLive | None,
    entries: Sequence[Entry],
) -> ClusterLive:
    """One document; ``lives`` are the readings before and now."""
    before, now = lives
    shown = tuple(_shown(node, now.get(node.address)) for node in status.nodes)
    status = status.model_copy(update={"state": judge(status.nodes, status.engine)})
    return ClusterLive(
        at=at,
        status=status,
        nodes=shown,
        rails=rails(before, now),
        serving=engine.serving if engine else None,
        events=tuple(event(entry) for entry in entries[-MOST_EVENTS:]),
        verdict=verdict(status, shown),
    )


def _shown(node: NodeStatus, live: NodeLive | None) -> NodeLive:
    return NodeLive(node=node, at=0.0) if live is None else live.model_copy(update={"node": node})


def event(entry: Entry) -> EventLive:
    """One line of a journal."""
    return EventLive(at=entry.time, node=entry.node, kind=entry.kind, text=entry.words, level=entry.level)
