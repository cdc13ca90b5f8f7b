"""The status document: its page, and its JSON schema."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from pages.markdown import code, page, table
from shoal.state import status
from shoal.state.status import ClusterState, ClusterStatus, EngineState, ExecutorKind, NodeState, Transport

NODE_STATES = {
    NodeState.STARTING: "The cluster was started less than 20 s ago, and this node's agent does not answer yet.",
    NodeState.WAITING: "The agent waits for the head, or waits a moment before it starts Ray again.",
    NodeState.JOINING: "Ray is starting, or the agent checks that the node is in Ray's table as it should be.",
    NodeState.UP: "The node is in the cluster, and was checked.",
    NodeState.DRAINING: "The agent was told to stop, and leaves the cluster.",
    NodeState.STOPPED: "The agent has left the cluster, and is about to end.",
    NodeState.FAILED: "The agent gave up: `detail` says why. It tries once more after ten minutes.",
    NodeState.SUSPECT: "Silent for two seconds: the agent does not answer, or reaches its raylet or the head no more. "
    "Nothing is restarted yet.",
    NodeState.LOST: "Its Ray, or its agent, has ended, or it has been silent for longer than `SHOAL_LOST_AFTER`.",
}
ENGINE_STATES = {
    EngineState.WAITING: "The gate is shut. `detail` names who is missing or different, who holds the GPUs, "
    "or which other supervisor has the engine.",
    EngineState.STARTING: "vLLM was started, and has not produced a token yet. `phase` says where it is.",
    EngineState.READY: "vLLM's token counter moved since the last look, or a token was asked for and came within 3 s.",
    EngineState.UNREADY: "It was ready. Now no token comes, a node is not up, or the supervisor does not answer.",
    EngineState.DRAINING: "A restart was asked for. Running requests may finish, new ones are answered with 503.",
    EngineState.RESTARTING: "vLLM ended, or is ended: evidence is saved, its ranks are ended, and it is started again.",
    EngineState.FAILED: "It ended too often, or in a way that a restart only repeats. `shoal restart` tries again; "
    "else, unless it would only repeat, one more try follows after ten minutes.",
    EngineState.STOPPING: "The supervisor was told to stop, and ends vLLM.",
    EngineState.STOPPED: "vLLM has been ended.",
}
CLUSTER_STATES = {
    ClusterState.DOWN: "Nothing was brought up from this state folder.",
    ClusterState.STARTING: "Nodes or engine are still coming up.",
    ClusterState.READY: "A token can be produced, and every node is up.",
    ClusterState.DEGRADED: "A part that was up, or should be, is not. It may be on its way back. "
    "Or the engine serves over TCP although RDMA was planned: its `transport` says why.",
    ClusterState.FAILED: "The engine or a node has given up.",
    ClusterState.STOPPING: "It is being taken down.",
}
TRANSPORTS = {
    Transport.RDMA: "NCCL uses an RDMA network on every node, and its bytes moved on every node's HCAs.",
    Transport.TCP: "NCCL uses sockets, or no RDMA bytes moved while tokens came. A fault where RDMA was planned: "
    "two nodes or more with an ACTIVE HCA, and nobody has turned RDMA off.",
    Transport.LOCAL: "Nothing crosses a network: one node, or one machine, or ranks that speak within their node only.",
    Transport.UNKNOWN: "Neither NCCL's words nor the counters tell. `detail` says what is missing.",
}
EXECUTORS = {
    ExecutorKind.RAY: "Ray: each node's agent runs its Ray, and vLLM places the ranks in it.",
    ExecutorKind.MP: "vLLM's own processes: each worker's agent runs them on the supervisor's order.",
}


def schema() -> str:
    """The status document as JSON schema."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    document |= ClusterStatus.model_json_schema(mode="serialization")
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def status_page() -> str:
    """The status document, field by field."""
    parts: tuple[type[BaseModel], ...] = (
        ClusterStatus,
        status.NodeStatus,
        status.EngineStatus,
        status.TransportStatus,
        status.Versions,
    )
    states = (
        (ClusterState, CLUSTER_STATES),
        (NodeState, NODE_STATES),
        (EngineState, ENGINE_STATES),
        (Transport, TRANSPORTS),
        (ExecutorKind, EXECUTORS),
    )
    return page(
        "Status document",
        "`shoal status --json` prints one document of this form. It says what is known at this moment; "
        "nothing is remembered.\n\n"
        f"This page describes `schema_version` {status.SCHEMA_VERSION}; "
        "[status.schema.json](status.schema.json) is the same as JSON schema.\n"
        "A new optional field keeps the version. A field that is removed, or that changes its meaning, raises it.\n\n"
        "The same parts come from the endpoints: an agent answers `/status` with a [NodeStatus](#nodestatus), "
        "the supervisor with an [EngineStatus](#enginestatus).\n\n"
        "Exit code of `shoal status`, with `--json` or without: 0 while the state is `ready`, 4 where it is `down`, "
        "1 for all others.\nWith `-f FILE` it is 3 where no host can be asked.\n",
        *(f"## {part.__name__}\n\n{field_table(part)}" for part in parts),
        *(f"## {kind.__name__}\n\n{state_table(kind, meanings)}" for kind, meanings in states),
    )


def field_table(part: type[BaseModel]) -> str:
    """The fields of one part."""
    properties = part.model_json_schema(mode="serialization")["properties"]
    return table(
        ("field", "type", "meaning"),
        (
            (code(name), words(value), value.get("description", "").replace("None", "`null`"))
            for name, value in properties.items()
        ),
    )


def state_table(kind: type[StrEnum], meanings: Mapping[Any, str]) -> str:
    """States with their meaning; a state without one fails here."""
    return table(("state", "meaning"), ((code(state.value), meanings[state]) for state in kind))


def words(schema: Mapping[str, Any]) -> str:
    """The type that a piece of JSON schema describes."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(words(part) for part in schema["anyOf"])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(code(str(value)) for value in values)
    if schema.get("type") == "array":
        return f"list of {words(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return f"object of {words(schema['additionalProperties'])}" if "additionalProperties" in schema else "object"
    return str(schema.get("type", "any")) + bounds(schema)


def bounds(schema: Mapping[str, Any]) -> str:
    """The bounds of a number, in words."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    return f", more than {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else ""
