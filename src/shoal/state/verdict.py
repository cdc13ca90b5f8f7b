"""The cluster in one sentence: what is the matter, where, and the command that mends it or tells more. Pure."""

import ipaddress
import re
from collections.abc import Iterable, Sequence

from shoal.state.live import NodeLive, Verdict
from shoal.state.status import ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus

# What a command may hold: a name is what its node calls itself, and a command is copied into a shell.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
# Nodes on loopback are of this machine's own cluster. Of others no node knows whether somebody keeps a shoal.yaml: so a
# command is one for those who have it, and after a # one for those who have none. In a shell the first one is run.
FILE = "-f shoal.yaml"
INSIDE = "docker exec vllm python3 /opt/shoal/shoal.pyz"


def verdict(status: ClusterStatus, nodes: Sequence[NodeLive]) -> Verdict:
    """The first thing that somebody should know."""
    found = (
        _gone(status.nodes)
        or _failed(nodes)
        or _engine_down(status)
        or _slow(status)
        or _silent(status.nodes)
        or _engine_on_its_way(status.engine)
    )
    return found or _well(status, nodes)


def _well(status: ClusterStatus, nodes: Sequence[NodeLive]) -> Verdict:
    if status.engine is None or status.engine.state is not EngineState.READY:
        return Verdict(level="busy", words="The engine is not there yet.")
    waiting = [node.name for node in status.nodes if node.state is not NodeState.UP]
    if waiting:
        return Verdict(level="warn", words=f"{status.engine.model} answers; not up: {_names(waiting)}.")
    words = f"All is well: {status.engine.model} answers on {_count(len(status.nodes))}."
    # Checks failed, and yet it serves: worth a look, and no alarm.
    failed = {found.id for live in nodes for found in live.findings if found.status == "FAIL"}
    more = f" Worth a look: {_names(sorted(failed))}." if failed else ""
    return Verdict(level="good", words=words + more)


def _gone(nodes: Sequence[NodeStatus]) -> Verdict | None:
    lost = [node for node in nodes if node.state in {NodeState.LOST, NodeState.STOPPED}]
    if not lost:
        return None
    first = lost[0]
    words = {NodeState.LOST: "is lost", NodeState.STOPPED: "has stopped"}[first.state]
    subject = f"Node {first.name} {words}" if len(lost) == 1 else f"{len(lost)} nodes are gone: {_names(_of(lost))}"
    return Verdict(level="bad", words=_sentence(subject, first.detail), fix=_look(first))


def _failed(nodes: Sequence[NodeLive]) -> Verdict | None:
    for live in nodes:
        if live.node.state is NodeState.FAILED:
            fixes = [one.fix for one in live.findings if one.status == "FAIL" and one.fix]
            fix = fixes[0] if fixes else _look(live.node)
            return Verdict(level="bad", words=_sentence(f"Node {live.node.name} has failed", live.node.detail), fix=fix)
    return None


def _engine_down(status: ClusterStatus) -> Verdict | None:
    engine = status.engine
    if engine is None:
        return None
    if engine.state is EngineState.FAILED:
        words = _sentence("The engine has given up", engine.detail or engine.last_fault)
        return Verdict(level="bad", words=words, fix=_command("restart", status, f"{INSIDE} restart"))
    if engine.state is EngineState.UNREADY:
        fix = _command("logs engine", status, "docker logs --tail 50 vllm")
        return Verdict(level="bad", words=_sentence("No token comes", engine.detail), fix=fix)
    return None


def _slow(status: ClusterStatus) -> Verdict | None:
    engine = status.engine
    if engine is None or not engine.over_tcp or engine.transport is None:
        return None
    words = _sentence("It serves, but over TCP and not over RDMA", engine.transport.detail)
    return Verdict(level="warn", words=words, fix=_command("prove", status, f"{INSIDE} prove"))


def _silent(nodes: Sequence[NodeStatus]) -> Verdict | None:
    found = [node for node in nodes if node.state is NodeState.SUSPECT]
    if not found:
        return None
    subject = f"Node {found[0].name} is suspect" if len(found) == 1 else f"{len(found)} nodes are suspect"
    return Verdict(level="warn", words=_sentence(subject, found[0].detail), fix=_look(found[0]))


def _engine_on_its_way(engine: EngineStatus | None) -> Verdict | None:
    if engine is None or engine.state is EngineState.READY:
        return None
    if engine.state is EngineState.STARTING:
        phase = f": {engine.phase}, {engine.phases.get(engine.phase, 0):.0f} s" if engine.phase else ""
        return Verdict(level="busy", words=f"The engine is starting{phase}.")
    if engine.state is EngineState.RESTARTING:
        return Verdict(level="warn", words=_sentence("The engine is being restarted", engine.last_fault))
    words = {
        EngineState.WAITING: "The engine waits",
        EngineState.DRAINING: "The engine finishes its requests before a restart",
    }.get(engine.state, f"The engine is {engine.state.value}")
    return Verdict(level="busy", words=_sentence(words, engine.detail))


def _command(words: str, status: ClusterStatus, on_the_head: str) -> str:
    """A command that fits where the cluster is: on this machine, or on hosts."""
    if all(map(_here, status.nodes)):
        return f"shoal {words}"
    return f"shoal {words} {FILE}   # or on the head: {on_the_head}"


def _look(node: NodeStatus) -> str:
    """Where more is told of a node: by the run's logs where it is a process of this machine, else at the node."""
    if not PLAIN.fullmatch(node.name) or not PLAIN.fullmatch(node.address):
        return "shoal status" if _here(node) else f"shoal status {FILE}"
    if _here(node):
        return f"shoal logs {node.name}"
    return f"shoal logs {node.name} {FILE}   # or: ssh {node.address} docker logs --tail 50 ray-{node.role}"


def _here(node: NodeStatus) -> bool:
    try:
        return ipaddress.ip_address(node.address).is_loopback
    except ValueError:
        return False


def _of(nodes: Iterable[NodeStatus]) -> list[str]:
    return [node.name for node in nodes]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _count(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"


def _sentence(what: str, why: str) -> str:
    return f"{what}: {why.rstrip('.')}." if why else f"{what}."
