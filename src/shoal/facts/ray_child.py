"""The one program that imports ray: asks the GCS, prints one JSON document, ends.

    python -m shoal.facts.ray_child nodes HOST:PORT [--wait IP [--mark RESOURCE]] [--timeout S]
    python -m shoal.facts.ray_child free HOST:PORT (--node NODE_ID... | --question FILE) [--timeout S]
    python -m shoal.facts.ray_child drain HOST:PORT NODE_ID [--deadline S] [--reason PREEMPTION] [--message TEXT]

A child, because importing ray costs 90 MB. Exit codes: 0 printed (and found, accepted), 3 not found in time or
not accepted (printed all the same), 4 the GCS did not answer or refused the token: ``{"error": ..., "kind": ...}``.
The token comes from the environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH), never from argv.
"""

import argparse
import asyncio
import importlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal.facts.grpc_health import serving
from shoal.facts.ray import EXIT_FOUND, EXIT_NOT_FOUND, EXIT_UNREACHABLE

POLL_S = 0.1
CALL_S = 2.0
QUESTION_S = 60.0
ALIVE = 0
# Ray's defaults add up to 40 s of silence for a GCS that is not there. Read once, when ray is imported.
LIMITS = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "2"}


class GcsError(Exception):
    """The GCS was not asked; ``kind``: "token", "ray" (not to be imported), "question" (none came), "unreachable"."""

    def __init__(self, why: str, kind: str = "unreachable") -> None:
        super().__init__(why)
        self.kind = kind


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="shoal.facts.ray_child")
    verbs = parser.add_subparsers(dest="verb", required=True)
    nodes = verbs.add_parser("nodes")
    nodes.add_argument("address", type=address_type)
    nodes.add_argument("--wait", metavar="IP")
    nodes.add_argument("--mark", metavar="RESOURCE", default="")
    nodes.add_argument("--timeout", type=float, default=5.0)
    free = verbs.add_parser("free")
    free.add_argument("address", type=address_type)
    free.add_argument("--node", metavar="NODE_ID", action="append", default=[], type=node_id_type)
    free.add_argument("--question", metavar="FILE", type=Path)
    free.add_argument("--timeout", type=float, default=20.0)
    drain = verbs.add_parser("drain")
    drain.add_argument("address", type=address_type)
    drain.add_argument("node_id", type=node_id_type)
    drain.add_argument("--deadline", type=int, default=0)
    drain.add_argument("--reason", choices=("PREEMPTION", "IDLE_TERMINATION"), default="PREEMPTION")
    drain.add_argument("--message", default="")
    drain.set_defaults(timeout=5.0)
    return parser.parse_args(argv)


def address_type(text: str) -> str:
    """``host:port``, kept literally."""
    if re.fullmatch(r".+:\d{1,5}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def node_id_type(text: str) -> str:
    """A node id: 56 hexadecimal digits."""
    if re.fullmatch(r"[0-9a-f]{56}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a node id of Ray")
    return text


def require_token(env: Mapping[str, str]) -> None:
    """Raise GcsError where the token that the environment promises is not there: Ray would abort the process."""
    if env.get("RAY_AUTH_MODE", "").lower() != "token" or env.get("RAY_AUTH_TOKEN"):
        return
    path = Path(env.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        empty = not path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise GcsError(f"the token file {path} cannot be read: {error.strerror}", "token") from error
    if empty:
        raise GcsError(f"the token file {path} is empty", "token")


def require_server(address: str, timeout: float) -> None:
    """Raise GcsError with the cause where nobody serves at the address; Ray itself would only say that time passed."""
    host, _, port = address.rpartition(":")
    health = asyncio.run(serving(host.strip("[]"), int(port), timeout=timeout))
    if not health.serving:
        raise GcsError(f"GCS at {address}: {health.reason}")


def require_ready(address: str, env: Mapping[str, str], timeout: float) -> None:
    """Raise GcsError for what is known before ray is imported. Under TLS the plain-text question could only fail."""
    require_token(env)
    if env.get("RAY_USE_TLS", "0") in ("", "0"):
        require_server(address, timeout)


def told(error: Exception, address: str, env: Mapping[str, str]) -> GcsError:
    """An error of Ray's client as its cause in one line."""
    text = " ".join(str(error).split())
    if "AuthToken" not in text and type(error).__name__ != "AuthenticationError":
        return GcsError(f"GCS at {address}: {text or type(error).__name__}")
    if env.get("RAY_AUTH_MODE", "").lower() != "token":
        return GcsError(f"GCS at {address} asks for a token and RAY_AUTH_MODE is not 'token' here", "token")
    source = "RAY_AUTH_TOKEN" if env.get("RAY_AUTH_TOKEN") else env.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return GcsError(f"token mismatch: GCS at {address} refused the token in {source}", "token")


def row(info: Any) -> dict[str, Any]:
    """One GcsNodeInfo message as a JSON object."""
    alive = info.state == ALIVE
    death = info.death_info
    why = f"{death.Reason.Name(death.reason)}: {death.reason_message}".removesuffix(": ")
    return {
        "node_id": info.node_id.hex(),
        "address": info.node_manager_address,
        "hostname": info.node_manager_hostname,
        "alive": alive,
        "is_head": info.is_head_node,
        "resources": dict(info.resources_total),
        "start_time_ms": info.start_time_ms,
        "death_reason": "" if alive else why,
    }


def wait_for_rows(
    client: Any, address: str | None, timeout: float, mark: str = ""
) -> tuple[list[dict[str, Any]], bool]:
    """The table, and whether ``address`` is alive in it; asked again until it is or ``timeout`` seconds are over.

    With a ``mark``, a node without that resource does not count: the GCS takes a killed raylet for alive until its
    health checks have failed.
    """
    end = time.monotonic() + timeout
    while True:
        rows = [row(info) for info in client.get_all_node_info(timeout=CALL_S).values()]
        found = address is None or any(
            one["alive"] and one["address"] == address and (not mark or mark in one["resources"]) for one in rows
        )
        if found or time.monotonic() >= end:
            return rows, found
        time.sleep(POLL_S)


def nodes(client: Any, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The table's document, and whether what was waited for is in it."""
    import ray

    rows, found = wait_for_rows(client, args.wait, args.timeout, args.mark)
    cluster = client.cluster_id
    document = {
        "ray": ray.__version__,
        "python": platform.python_version(),
        "cluster_id": None if cluster is None or cluster.is_nil() else cluster.hex(),
        "nodes": rows,
    }
    return document, found


def usage(client: Any, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The GPUs of each wanted node, all and free ones: what a placement group holds is not free.

    A raylet that was killed stays in the table with all that it held; so nodes are named by their ids.
    """
    from ray.core.generated import autoscaler_pb2

    reply = autoscaler_pb2.GetClusterResourceStateReply()
    reply.ParseFromString(client.get_cluster_resource_state())
    return [
        {
            "node_id": node.node_id.hex(),
            "total": dict(node.total_resources).get("GPU", 0.0),
            "free": dict(node.available_resources).get("GPU", 0.0),
        }
        for node in reply.cluster_resource_state.node_states
        if node.node_id.hex() in wanted
    ]


def wait_for_question(file: Path) -> list[str]:
    """The node ids in that file, once it is there."""
    end = time.monotonic() + QUESTION_S
    while time.monotonic() < end:
        if file.exists():
            return file.read_text(encoding="utf-8").split()
        time.sleep(POLL_S / 2)
    raise GcsError(f"no question came within {QUESTION_S:g} s", "question")


def free(client: Any, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The GPUs of each node, and whether all are free; asked again until they are or ``timeout`` seconds are over."""
    wanted = args.node if args.question is None else wait_for_question(args.question)
    end = time.monotonic() + args.timeout
    while True:
        rows = usage(client, wanted)
        good = all(one["free"] >= one["total"] for one in rows)
        if good or time.monotonic() >= end:
            return {"nodes": rows}, good
        time.sleep(POLL_S)


def drain(client: Any, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Ask for a drain, as the hidden `ray drain-node` does: the document, and whether it was accepted."""
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value(f"DRAIN_NODE_REASON_{args.reason}")
    deadline_ms = time.time_ns() // 1_000_000 + args.deadline * 1000
    accepted, rejection = client.drain_node(args.node_id, reason, args.message, deadline_ms)
    return {"accepted": bool(accepted), "reason": rejection}, bool(accepted)


def ask_ray(args: argparse.Namespace, env: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """The document to print and the exit code; GcsError where there is none."""
    require_ready(args.address, env, min(args.timeout, CALL_S))
    try:
        from ray.exceptions import RayError

        client_type = importlib.import_module("ray._raylet").GcsClient  # ray's type stub does not know it
    except ImportError as error:
        raise GcsError(f"{sys.executable} cannot import ray: {error}", "ray") from error
    verb = {"nodes": nodes, "free": free, "drain": drain}[args.verb]
    try:
        # Ray's client takes the address literally: only `ray start` and ray.init() rewrite 127.0.0.1.
        document, good = verb(client_type(address=args.address), args)
    except RayError as error:
        raise told(error, args.address, env) from error
    return document, EXIT_FOUND if good else EXIT_NOT_FOUND


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    args = parse_args(argv)
    os.environ.update({name: value for name, value in LIMITS.items() if name not in os.environ})
    try:
        document, code = ask_ray(args, os.environ)
    except GcsError as error:
        document, code = {"error": str(error), "kind": error.kind}, EXIT_UNREACHABLE
    print(json.dumps(document), flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
