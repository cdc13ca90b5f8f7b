"""Where the parts of a cluster answer."""

from dataclasses import dataclass

from shoal.agent.key import cluster_key
from shoal.host.local import LocalHost
from shoal.ops.snapshot import token_file
from shoal.state.run import RunRecord


@dataclass(frozen=True)
class Reach:
    """Where a cluster's parts answer."""

    addresses: tuple[str, ...]
    agent_port: int
    key: str | None
    serve_url: str
    endpoint: str
    api_key_file: str
    logs: str = ""


def of_record(record: RunRecord) -> Reach:
    """The cluster of a record, whose key lies beside its API key."""
    return Reach(
        tuple(node.address for node in record.nodes),
        int(record.nodes[0].agent_url.rpartition(":")[2]),
        cluster_key(LocalHost(), {"RAY_AUTH_TOKEN_PATH": token_file(record)}),
        record.serve_url,
        record.endpoint,
        record.api_key_file,
        record.log_dir,
    )
