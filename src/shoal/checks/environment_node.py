"""Group ``env``: addresses, versions, secrets and switches in the environment, against what the node has."""

import ipaddress
import re

from shoal.checks.base import Check, Scope, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import ENV_NOT_READ, active_hcas, effective_env, env, nccl_version, when_set
from shoal.facts.node import NodeFacts
from shoal.nccl import socket
from shoal.nccl.variables import Version, dotted, parse_version

ENV = Scope.ENVIRONMENT
SUBNET_AWARE: Version = (2, 30, 7)
TOKENS: Version = (2, 52)


@check(
    "env.host-ip", "VLLM_HOST_IP is an address of this node", severity=Severity.FATAL, scope=ENV, needs=("env", "net")
)
@when_set("VLLM_HOST_IP")
def host_ip(facts: NodeFacts) -> Verdict:
    """Ray and vLLM bind to it, and the other nodes come to it."""
    value = env(facts, "VLLM_HOST_IP")
    if not any(dev.addresses for dev in facts.net.netdevs or ()):
        return unknown("addresses were not read: ip address")
    dev = facts.net.holding(value)
    if dev is None:
        return fail(f"VLLM_HOST_IP={value} is on no interface of this node", "ip -br address   # then correct it")
    if dev.operstate == "down" or dev.carrier is False:
        return fail(f"VLLM_HOST_IP={value} is on {dev.name}, which is down", f"sudo ip link set {dev.name} up")
    return ok(f"VLLM_HOST_IP={value} on {dev.name}")


@check(
    "env.control-interface",
    "NCCL's sockets use the interface of VLLM_HOST_IP",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env", "net", "stack"),
)
@when_set("VLLM_HOST_IP")
def control_interface(facts: NodeFacts) -> Verdict:
    """Where NCCL's bootstrap goes by another network than Ray's, a firewall there shows as a hang."""
    chosen = socket.choose(facts.net, nccl_version(facts), effective_env(facts))
    dev = facts.net.holding(env(facts, "VLLM_HOST_IP"))
    if chosen.name is None or dev is None:
        return unknown(chosen.why if dev else "VLLM_HOST_IP is on no known interface")
    if chosen.name == dev.name:
        return ok(f"{dev.name}: {chosen.why}")
    said = f"NCCL takes {chosen.name} ({chosen.why}), and VLLM_HOST_IP is on {dev.name}"
    return warn(said, f"NCCL_SOCKET_IFNAME=={dev.name}")


@check("env.nccl-conf", "NCCL's configuration files are known", severity=Severity.INFO, scope=ENV, needs=("stack",))
def nccl_conf(facts: NodeFacts) -> Verdict:
    """/etc/nccl.conf and ~/.nccl.conf set what the environment does not. Nobody remembers that they are there."""
    found = facts.stack.nccl_conf
    return (
        ok(", ".join(f"{name}={value}" for name, value in sorted(found.items()))) if found else skip("there are none")
    )


@check("env.subnet-aware", "subnet-aware routing is known to this NCCL", scope=ENV, needs=("env", "stack"))
@when_set("NCCL_IB_SUBNET_AWARE_ROUTING")
def subnet_aware(facts: NodeFacts) -> Verdict:
    """A ring without a switch needs it, and an NCCL before 2.30.7 does not know it: peers then stay unreachable."""
    version = parse_version(facts.stack.nccl or "")
    if version is None:
        return unknown("the version of NCCL was not read")
    said = f"NCCL {dotted(version)}"
    if version < SUBNET_AWARE:
        return fail(
            f"{said}, and NCCL_IB_SUBNET_AWARE_ROUTING came with 2.30.7", "use an image with NCCL 2.30.7 or newer"
        )
    many = len(active_hcas(facts))
    if many > 2:
        return warn(
            f"{said} with {many} HCAs: all traffic may fall on the first", "prove it: every HCA must carry bytes"
        )
    return ok(said)


@check("env.debug", "NCCL's log is not left on", severity=Severity.INFO, scope=ENV, needs=("env", "stack"))
@when_set("NCCL_DEBUG")
def debug(facts: NodeFacts) -> Verdict:
    """INFO is needed for a proof at the start; TRACE costs speed, and neither is rotated by NCCL."""
    value = effective_env(facts)["NCCL_DEBUG"]
    return ok(f"NCCL_DEBUG={value}" + ("; it slows every collective" if value.upper() == "TRACE" else ""))


@check(
    "env.net-mismatch",
    "different network cards are not waved through",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env", "stack"),
)
@when_set("NCCL_IGNORE_NET_MISMATCH")
def net_mismatch(facts: NodeFacts) -> Verdict:
    """With NCCL_IGNORE_NET_MISMATCH=1, nodes with different numbers of HCAs start, and may hang in silence."""
    value = effective_env(facts)["NCCL_IGNORE_NET_MISMATCH"]
    said = f"NCCL_IGNORE_NET_MISMATCH={value}"
    return (
        ok(said) if value == "0" else warn(said, "remove it, and give NCCL_IB_HCA the same number of HCAs everywhere")
    )


@check("env.head-address", "Ray's address is the head's fabric address", scope=ENV, needs=("env", "net"))
@when_set("RAY_ADDRESS")
def head_address(facts: NodeFacts) -> Verdict:
    """The head must be reached by the fabric. An address of another network gives a cluster that talks there."""
    host = env(facts, "RAY_ADDRESS").rpartition(":")[0].strip("[]")
    dev = facts.net.holding(env(facts, "VLLM_HOST_IP"))
    if dev is None or not dev.ipv4:
        return unknown("VLLM_HOST_IP is on no known interface")
    if any(host == item.ip for item in dev.ipv4) or not re.fullmatch(r"[0-9.]+", host):
        return ok(f"RAY_ADDRESS={env(facts, 'RAY_ADDRESS')}")
    near = any(_inside(host, item.network) for item in dev.ipv4)
    said = f"RAY_ADDRESS={env(facts, 'RAY_ADDRESS')}, and {dev.name} is in {dev.ipv4[0].network}"
    return ok(said) if near else warn(said, "RAY_ADDRESS=ADDRESS:6379   # the head's address in that subnet")


def _inside(ip: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(ip) in ipaddress.ip_network(network)
    except ValueError:
        return False


@check("env.preload", "no other NCCL is put in front", severity=Severity.WARNING, scope=ENV, needs=("env", "stack"))
def preload(facts: NodeFacts) -> Verdict:
    """LD_PRELOAD, VLLM_NCCL_SO_PATH and LD_LIBRARY_PATH choose which libnccl is loaded. It must be one on all nodes."""
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    told = [f"{name}={value}" for name in ("LD_PRELOAD", "VLLM_NCCL_SO_PATH") if "nccl" in (value := env(facts, name))]
    if told:
        return warn(", ".join(told), f"unset {told[0].partition('=')[0]}, or set it alike on every node")
    found = facts.stack.nccl_libraries
    if found and len(found) > 1 and env(facts, "LD_LIBRARY_PATH"):
        return warn(f"several libraries: {', '.join(found)}; LD_LIBRARY_PATH is set", "remove all but torch's own")
    return ok(", ".join(found or ()) or "none is put in front")


@check("env.ray-token", "Ray asks for a token", severity=Severity.WARNING, scope=ENV, needs=("env", "stack"))
def ray_token(facts: NodeFacts) -> Verdict:
    """Whoever reaches Ray's ports may run any program on every node. Ray 2.52 and newer can ask for a token."""
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    if not env(facts, "RAY_MODE"):
        return skip("RAY_MODE is not set: no node")
    version = parse_version(facts.stack.ray or "")
    if version and version < TOKENS:
        return warn(
            f"Ray {facts.stack.ray} has no tokens",
            "shoal firewall ADDRESS... | sudo nft -f -   # on every node; or an image with Ray 2.52 or newer",
        )
    if env(facts, "RAY_AUTH_MODE") == "token":
        return ok("RAY_AUTH_MODE=token")
    said = f"RAY_AUTH_MODE={env(facts, 'RAY_AUTH_MODE') or '(not set)'}"
    return warn(said, "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH=FILE with the same token on every node")


@check(
    "env.secrets",
    "no secret is in the environment of every process",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env",),
)
def secrets(facts: NodeFacts) -> Verdict:
    """A token in the environment is inherited by every task that Ray runs, and shown by /proc to its owner."""
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    found = [name for name in ("RAY_AUTH_TOKEN", "VLLM_API_KEY") if env(facts, name)]
    if not found:
        return ok("neither RAY_AUTH_TOKEN nor VLLM_API_KEY is set")
    return warn(f"set: {', '.join(found)}", "put it into a file of mode 0600: RAY_AUTH_TOKEN_PATH, SHOAL_API_KEY_FILE")


@check("env.api-key", "the API asks for a key", scope=ENV, needs=("env",))
def api_key(facts: NodeFacts) -> Verdict:
    """The key comes by a file. Without one the supervisor does not start: an endpoint without a key is everybody's."""
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    if not env(facts, "MODEL_NAME"):
        return skip("MODEL_NAME is not set: nothing is served here")
    file = env(facts, "SHOAL_API_KEY_FILE")
    return ok(file) if file else fail("SHOAL_API_KEY_FILE is not set", "SHOAL_API_KEY_FILE=FILE   # made at the start")


@check("env.api-host", "the API listens on one address", severity=Severity.WARNING, scope=ENV, needs=("env",))
def api_host(facts: NodeFacts) -> Verdict:
    """On all addresses the API answers networks that nobody thought of, and its key travels in clear: plain HTTP."""
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    host = env(facts, "SHOAL_API_HOST")
    if host in {"0.0.0.0", "::"}:  # noqa: S104 (compared, not bound)
        mend = "SHOAL_API_HOST=ADDRESS; or close it to all but a few: shoal firewall --api-from NETWORK"
        return warn(f"SHOAL_API_HOST={host}: every address of this machine", mend)
    return ok(host or "the fabric's address")


CHECKS: tuple[Check[NodeFacts], ...] = (
    host_ip, control_interface, nccl_conf, subnet_aware, debug, net_mismatch, head_address, preload, ray_token, secrets,
    api_key, api_host,
)  # fmt: skip
