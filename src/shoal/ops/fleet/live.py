"""All that moves in a cluster on other machines, asked again and again through its head."""

from pathlib import Path

from shoal.errors import NotRunning, ShoalError
from shoal.host.base import Host
from shoal.ops.fleet import reach
from shoal.ops.fleet.planning import every, look, open_file
from shoal.plan.fleet import FleetPlan
from shoal.plan.fleet_changes import former
from shoal.spec.cluster import ClusterSpec
from shoal.state.live import ClusterLive


class FarLive:
    """What its head's agent puts together; it remembers the plan that is there, until something is wrong."""

    def __init__(self, spec: ClusterSpec, head: Host, file: Path) -> None:
        self._spec, self._head, self._file = spec, head, file
        self._plan: FleetPlan | None = None

    def __call__(self) -> ClusterLive:
        """The cluster now.

        Raises:
            ShoalError: nothing is up, or the head or its agent does not answer.
        """
        try:
            self._plan = self._plan or self._planned()
            return reach.live(self._head, self._plan)
        except ShoalError:
            self._plan = None
            raise

    def _planned(self) -> FleetPlan:
        hosts = (self._head,)
        plan = former(every(hosts, look(self._spec, hosts))[self._head.name])
        if plan is None:
            raise NotRunning(
                f"{self._head.name} has no release of {self._spec.cluster}", fix=f"shoal up -f {self._file}"
            )
        return plan


def live_reader(file: Path) -> FarLive:
    """What gives the document each time it is called, of the cluster in a file.

    Raises:
        ConfigError: the file cannot be read, or is a cluster of this machine alone.
    """
    spec, hosts = open_file(file)
    head = next(host.name for host in spec.hosts if host.role == "head")
    return FarLive(spec, hosts[head], file)
