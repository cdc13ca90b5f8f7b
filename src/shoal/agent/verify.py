"""VERIFY: is this node in the GCS node table, alive, with its own address and its GPUs? Pure."""

from shoal.facts.ray import RayTable


def judge(table: RayTable, address: str, gpus: int, mark: str = "") -> tuple[str | None, str]:
    """The node's Ray id and "", or None and the reason why it is not as it should be.

    ``mark`` is a resource that only this raylet offers: the GCS may still take a killed one at this address for alive.
    """
    row = table.alive_at(address, mark)
    if row is None:
        others = ", ".join(sorted({node.address for node in table.nodes if node.alive})) or "none"
        return None, f"the GCS has no live node at {address}; it has: {others}"
    offered = row.resources.get("GPU", 0)
    if offered != gpus:
        return None, f"the GCS has {address} with {offered:g} GPU(s), expected {gpus}"
    # A predecessor of this raylet, which the GCS may still take for alive, was on the same machine.
    twins = sorted({node.hostname for node in table.nodes if node.alive and node.address == address} - {row.hostname})
    if twins:
        return None, (
            f"two machines are in the cluster at {address}: {row.hostname} and {', '.join(twins)}; "
            "give each an address of its own (VLLM_HOST_IP)"
        )
    return row.node_id, ""
