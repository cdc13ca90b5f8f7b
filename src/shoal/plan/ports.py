"""Which ports a node's Ray uses: one block of a hundred, all named, none left to chance."""

from dataclasses import dataclass

BLOCK = 100


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
