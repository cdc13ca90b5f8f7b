"""Variables that were left to shoal, empty or ``auto``: chosen once, before Ray starts, and told with the reason.

The agent sees its own node only. What follows from several nodes together, such as a ring of cables, is for
``shoal fabric``, and for the ``.env``.
"""

from collections.abc import Mapping
from dataclasses import replace

from shoal.errors import ShoalError
from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.host.gather import gather
from shoal.log import EventLog
from shoal.nccl.variables import LAST, parse_version
from shoal.plan.fabric import NodeFabric, plan_fabric

# Lists of names: another spelling of the same choice is no mistake.
NAMES = ("NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "UCX_NET_DEVICES")
NEEDS = ("rdma", "net", "gpu", "stack", "env")


def is_open(value: str) -> bool:
    """Whether a variable with this value is left to shoal."""
    return value.strip().lower() in {"", "auto"}


def choices(facts: NodeFacts, env: Mapping[str, str]) -> NodeFabric:
    """The plan for this node in this environment. Pure."""
    version = parse_version(facts.stack.nccl or "") or LAST
    return plan_fabric([replace(facts, env=env)], version).nodes[0]


def choose(log: EventLog, host: Host, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that were chosen, with their values. Each is told, and so is what was set and looks wrong."""
    try:
        plan = choices(node_facts(gather(host, request(NEEDS))), env)
    except ShoalError as error:
        log("fabric", f"nothing is chosen: {error.what}", level="warn")
        return {}
    for setting in plan.settings:
        if is_open(env.get(setting.name, "")):
            log("fabric", f"{setting.name}={setting.value} (chosen: {setting.reason})")
        elif setting.name not in NAMES and env[setting.name] != setting.value:
            words = (
                f"{setting.name}={env[setting.name]} is left as set, {setting.value} would be right: {setting.reason}"
            )
            log("fabric", words, level="warn")
    for note in plan.notes:
        log("fabric", note)
    return {item.name: item.value for item in plan.settings if is_open(env.get(item.name, ""))}
