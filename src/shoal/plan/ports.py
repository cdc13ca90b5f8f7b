"""Which ports a node's Ray uses: one block of a hundred, all named, none left to chance."""

from dataclasses import dataclass, replace

BLOCK = 100
SPARE = range(8, 20)  # of a block: ports that a raylet which starts again takes, in turn


@dataclass(frozen=True)
class NodePorts:
    """The ports of one node's Ray. Ray picks random ones for whatever is not pinned."""

    gcs: int
    node_manager: int
    object_manager: int
    runtime_env_agent: int
    dashboard_agent_listen: int
    dashboard_agent_grpc: int
    metrics_export: int
    client_server: int
    min_worker: int
    max_worker: int

    def named(self, *, head: bool) -> dict[str, int]:
        """Ports that must be free before Ray starts, by name. The head alone has a GCS and a client server."""
        ports = {
            "Ray node manager": self.node_manager,
            "Ray object manager": self.object_manager,
            "Ray runtime-env agent": self.runtime_env_agent,
            "Ray dashboard agent": self.dashboard_agent_listen,
            "Ray dashboard agent gRPC": self.dashboard_agent_grpc,
            "Ray metrics": self.metrics_export,
        }
        return {"Ray GCS": self.gcs, "Ray client server": self.client_server} | ports if head else ports

    @property
    def node_managers(self) -> tuple[int, ...]:
        """The ports that raylets of this node take in turn, the first one first."""
        base = self.metrics_export - 6
        return (base + 1, *(base + number for number in SPARE))

    def at_turn(self, turn: int) -> "NodePorts":
        """The ports of the start with that number: its raylet listens on another than the one before it.

        The GCS tries to reach a raylet that died less and less often. A new one at the same address and port is behind
        that same wait: the GCS cannot reach it, calls it dead after a few checks, and what a placement that failed had
        taken stays in its books. Seen with Ray 2.60 after an absence of 14 s.
        """
        return replace(self, node_manager=self.node_managers[turn % len(self.node_managers)])


def node_ports(base: int, gcs: int | None = None) -> NodePorts:
    """The block that starts at ``base``; ``gcs`` where the head's port is said elsewhere (``RAY_ADDRESS``)."""
    return NodePorts(
        gcs=gcs or base,
        node_manager=base + 1,
        object_manager=base + 2,
        runtime_env_agent=base + 3,
        dashboard_agent_listen=base + 4,
        dashboard_agent_grpc=base + 5,
        metrics_export=base + 6,
        client_server=base + 7,
        min_worker=base + 20,
        max_worker=base + BLOCK - 1,
    )
