"""A fabric plan as a JSON document."""

from dataclasses import asdict
from typing import Any

from shoal.nccl.variables import dotted
from shoal.plan.fabric.types import Fabric, HcaPort, NodeFabric, Rail


def document(fabric: Fabric, source: str) -> dict[str, Any]:
    """The plan; ``source`` says where the version of NCCL is from."""
    return {
        "schema_version": 1,
        "nccl": {"version": dotted(fabric.nccl), "source": source},
        "topology": fabric.topology,
        "order": list(fabric.order),
        "rails": [_rail(rail, fabric) for rail in fabric.rails],
        "nodes": [_node(node) for node in fabric.nodes],
    }


def _rail(rail: Rail, fabric: Fabric) -> dict[str, Any]:
    members = [
        {"node": fabric.nodes[number].name, "device": device, "port": port} for number, (device, port) in rail.members
    ]
    return {"subnets": list(rail.subnets), "assumed": rail.assumed, "members": members}


def _node(node: NodeFabric) -> dict[str, Any]:
    return {
        "name": node.name,
        "hcas": [_hca(row) for row in node.hcas],
        "settings": [asdict(setting) for setting in node.settings],
        "notes": list(node.notes),
    }


def _hca(row: HcaPort) -> dict[str, Any]:
    rate = row.rate_gbps
    return asdict(row) | {"rate_gbps": int(rate) if rate is not None and rate.is_integer() else rate}
