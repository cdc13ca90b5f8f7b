"""``shoal status``: one status of the cluster, of this machine or of many hosts.

Agents and supervisor answer on the fabric, where an operator often is not. So one node asks them all, told to over ssh:
the head, and where that cannot be asked, the next whose agent runs. Where the head says that all is well, no other host
is looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shoal.errors import HostError, ShoalError
from shoal.host.base import Host
from shoal.ops import local
from shoal.ops.fleet import reach
from shoal.ops.fleet.desk import desk
from shoal.ops.fleet.planning import look, open_file, require_any
from shoal.ops.fleet.running import Standings, able, plan_of
from shoal.ops.snapshot import snapshot
from shoal.plan.fleet import API_KEY, FleetPlan, NodeDeployment
from shoal.spec.cluster import ClusterSpec
from shoal.state.standing import Standing
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus, judge

AGAIN = 15  # looks by one node alone, until all hosts are looked at again


def reader(file: Path | None, env: Mapping[str, str]) -> Callable[[], ClusterStatus]:
    """What gives the status each time it is called: of the local cluster, or of the one in the file."""
    if file is None:
        return lambda: snapshot(local.running(env))
    spec, hosts = open_file(file)
    key = desk(spec.cluster, env).folder / API_KEY
    return FarStatus(spec, hosts, str(key) if key.is_file() else None)


class FarStatus:
    """The status of a cluster on other machines. It remembers which node told it last."""

    def __init__(self, spec: ClusterSpec, hosts: Mapping[str, Host], key: str | None = None) -> None:
        self._spec, self._hosts, self._key = spec, hosts, key
        self._plan: FleetPlan | None = None
        self._keeper: NodeDeployment | None = None
        self._looks = 0

    def __call__(self) -> ClusterStatus:
        """The status now.

        Raises:
            HostError: no host can be asked.
        """
        status = self._by_keeper() or self._by_anybody()
        return status.model_copy(update={"api_key_file": self._key}) if self._key and status.nodes else status

    def _by_keeper(self) -> ClusterStatus | None:
        """By the node that told it last time; None where it does not any more, or it is time to look at all."""
        self._looks += 1
        if self._plan is None or self._keeper is None or self._looks > AGAIN:
            return None
        return self._ask(self._plan, self._keeper)

    def _by_anybody(self) -> ClusterStatus:
        self._plan, self._keeper, self._looks = None, None, 0
        heads = [host.name for host in self._spec.hosts if host.role == "head"]
        first = self._look(heads)
        status = self._told(first)
        if status is not None and status.state is ClusterState.READY:
            return status
        rest = self._look([name for name in self._hosts if name not in heads])
        standings = {**first, **rest}
        require_any(standings)
        status = status or self._told(rest)
        if status is not None:
            return explained(status, standings)
        if self._plan is None or is_down(standings):
            return ClusterStatus(cluster=self._spec.cluster, state=ClusterState.DOWN)
        return pieced(self._plan, standings)

    def _look(self, names: Sequence[str]) -> Standings:
        return dict(zip(names, look(self._spec, [self._hosts[name] for name in names]), strict=True))

    def _told(self, standings: Standings) -> ClusterStatus | None:
        """By one of these hosts that can ask the others; None where there is none."""
        self._plan = plan = self._plan or plan_of(self._spec, standings)
        if plan is None:
            return None
        for node in able(plan, standings):
            if (status := self._ask(plan, node)) is not None:
                self._keeper = node
                return status
        return None

    def _ask(self, plan: FleetPlan, node: NodeDeployment) -> ClusterStatus | None:
        try:
            return reach.status(self._hosts[node.name], plan, node=node)
        except HostError:
            return None


def is_down(standings: Standings) -> bool:
    """Whether every host was asked, and nothing runs on any."""
    return all(isinstance(one, Standing) and not _runs(one) for one in standings.values())


def _runs(standing: Standing) -> bool:
    return any(unit.runs for unit in standing.units.values())


def explained(status: ClusterStatus, standings: Standings) -> ClusterStatus:
    """The status; of a node that is silent and that ssh does not reach either, why."""

    def whole(node: NodeStatus) -> NodeStatus:
        error = standings.get(node.name)
        if node.state not in {NodeState.SUSPECT, NodeState.LOST} or not isinstance(error, ShoalError):
            return node
        return node.model_copy(update={"detail": f"{node.detail}; {error.what}".lstrip("; ")})

    return status.model_copy(update={"nodes": tuple(map(whole, status.nodes))})


def pieced(plan: FleetPlan, standings: Standings) -> ClusterStatus:
    """What can be said where no node can ask the others."""
    nodes = tuple(_node(node, standings.get(node.name)) for node in (plan.head, *plan.workers))
    engine = EngineStatus(state=EngineState.UNREADY, model=plan.model, detail="no node could ask its supervisor")
    state = judge(nodes, engine)
    return ClusterStatus(cluster=plan.cluster, state=state, endpoint=plan.endpoint, nodes=nodes, engine=engine)


def _node(node: NodeDeployment, standing: Standing | ShoalError | None) -> NodeStatus:
    if isinstance(standing, Standing):
        runs = standing.unit("agent").runs
        words = "its agent runs, and could not be asked" if runs else "its agent does not run"
    else:
        runs, words = True, standing.what if standing else "it is no longer in the file"
    state = NodeState.SUSPECT if runs else NodeState.LOST
    return NodeStatus(
        name=node.name, role=node.role, address=node.address, state=state, detail=words, gpus=node.gpus
    )  # fmt: skip
