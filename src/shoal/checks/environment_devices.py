"""Group ``env``: names of devices, interfaces, plugins and GPUs in the environment, against what the node has."""

from shoal.checks.base import Check, Scope, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import ENV_NOT_READ, active_hcas, effective_env, env, has_rdma, is_spark, nccl_version, when_set
from shoal.facts.net import Netdev
from shoal.facts.node import NodeFacts
from shoal.nccl import hca, lists, socket

ENV = Scope.ENVIRONMENT


@check("env.ib-disable", "RDMA is not switched off", scope=ENV, needs=("env", "rdma", "stack"))
@when_set("NCCL_IB_DISABLE")
def ib_disable(facts: NodeFacts) -> Verdict:
    """NCCL_IB_DISABLE=1 sends everything over sockets. It is often left behind from a search for a fault."""
    value = effective_env(facts)["NCCL_IB_DISABLE"]
    if value == "0":
        return ok("NCCL_IB_DISABLE=0")
    if not active_hcas(facts):
        return skip("no HCA with an ACTIVE port")
    found = ", ".join(item.name for item in active_hcas(facts))
    return fail(f"NCCL_IB_DISABLE={value}, and {found} could be used", "remove NCCL_IB_DISABLE")


@check(
    "env.net",
    "the network that is asked for exists",
    severity=Severity.FATAL,
    scope=ENV,
    needs=("env", "rdma", "stack"),
)
@when_set("NCCL_NET")
def net(facts: NodeFacts) -> Verdict:
    """NCCL_NET forces one network: where it is not usable NCCL ends, and Socket beside RDMA is slow."""
    value = effective_env(facts)["NCCL_NET"]
    if value.lower() == "ib" and has_rdma(facts) is False:
        return fail(f"NCCL_NET={value}, and this node has no RDMA device", "remove NCCL_NET")
    if value.lower() == "socket" and active_hcas(facts):
        return warn(f"NCCL_NET={value}, and {active_hcas(facts)[0].name} could be used", "remove NCCL_NET")
    return ok(f"NCCL_NET={value}")


@check(
    "env.hca-exists",
    "NCCL_IB_HCA names devices of this node",
    severity=Severity.FATAL,
    scope=ENV,
    needs=("env", "rdma", "stack"),
)
@when_set("NCCL_IB_HCA")
def hca_exists(facts: NodeFacts) -> Verdict:
    """A filter that matches nothing is no error to NCCL: it says "No device found" at INFO, and uses sockets."""
    if facts.rdma.devices is None:
        return unknown("RDMA devices were not read")
    found = effective_env(facts)
    value = found["NCCL_IB_HCA"]
    names = ", ".join(item.name for item in facts.rdma.devices) or "none"
    listed = lists.parse(value, nccl_version(facts), hca.LIMIT)
    absent = [
        item.name
        for item in listed.entries
        if not listed.excludes
        and not any(
            device.name == item.name if listed.exact else device.name.startswith(item.name)
            for device in facts.rdma.devices
        )
    ]
    taken = [item for item in hca.ports(facts.rdma.devices, nccl_version(facts), found) if item.taken]
    mend = "correct it: rdma link   # names the devices; or remove it"
    if not any(listed.takes(device.name) for device in facts.rdma.devices):
        return fail(f"NCCL_IB_HCA={value} matches none of: {names}", mend)
    if not taken:
        return fail(f"NCCL_IB_HCA={value} leaves no ACTIVE port; devices: {names}", mend)
    if absent:
        return warn(f"NCCL_IB_HCA={value}: not on this node: {', '.join(absent)}; it has {names}", mend)
    return ok(f"NCCL_IB_HCA={value}: {', '.join(item.device.name for item in taken)}")


def _matching(facts: NodeFacts, value: str) -> list[Netdev]:
    names = lists.parse(value, nccl_version(facts), socket.LIMIT)
    return [dev for dev in facts.net.netdevs or () if names.takes(dev.name)]


@check(
    "env.interface-exists",
    "NCCL_SOCKET_IFNAME names an interface that is up",
    severity=Severity.FATAL,
    scope=ENV,
    needs=("env", "net", "stack"),
)
@when_set("NCCL_SOCKET_IFNAME")
def interface_exists(facts: NodeFacts) -> Verdict:
    """NCCL needs an interface for its bootstrap, with RDMA as well. A name that matches none ends it."""
    value = effective_env(facts)["NCCL_SOCKET_IFNAME"]
    if facts.net.netdevs is None:
        return unknown("interfaces were not read")
    mend = "correct it: ip -br address   # names the interfaces"
    found = _matching(facts, value)
    if not found:
        names = ", ".join(dev.name for dev in facts.net.netdevs)
        return fail(f"NCCL_SOCKET_IFNAME={value} matches none of: {names}", mend)
    down = [dev.name for dev in found if dev.running is False or dev.operstate == "down"]
    bare = [dev.name for dev in found if dev.addresses == ()]
    if len(down) == len(found):
        return fail(f"NCCL_SOCKET_IFNAME={value}: {', '.join(down)} is down", f"sudo ip link set {down[0]} up")
    if len(bare) == len(found):
        return fail(f"NCCL_SOCKET_IFNAME={value}: {', '.join(bare)} has no address", mend)
    return ok(f"NCCL_SOCKET_IFNAME={value}: {', '.join(dev.name for dev in found)}")


@check(
    "env.interface-prefix",
    "NCCL_SOCKET_IFNAME means one interface",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env", "net", "stack"),
)
@when_set("NCCL_SOCKET_IFNAME")
def interface_prefix(facts: NodeFacts) -> Verdict:
    """Names match by their beginning: eth is eth0 and eth1, and two nodes may take two networks."""
    value = effective_env(facts)["NCCL_SOCKET_IFNAME"]
    if facts.net.netdevs is None:
        return unknown("interfaces were not read")
    if value.startswith(("=", "^")):
        return ok(f"NCCL_SOCKET_IFNAME={value}")
    listed = lists.parse(value, nccl_version(facts), socket.LIMIT)
    for entry in listed.entries:
        found = [dev.name for dev in facts.net.netdevs if dev.name.startswith(entry.name)]
        if len(found) > 1:
            break
    else:
        return ok(f"NCCL_SOCKET_IFNAME={value}")
    return warn(
        f"{entry.name} is {', '.join(found)}", f"NCCL_SOCKET_IFNAME=={found[0]}   # = in front: exactly this one"
    )


@check(
    "env.gloo-interface",
    "Gloo is told which interface to use",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env", "net"),
)
def gloo_interface(facts: NodeFacts) -> Verdict:
    """Without GLOO_SOCKET_IFNAME, Gloo takes what the host's name resolves to. With several networks that may be one
    which the peers do not reach.
    """
    if facts.env is None:
        return unknown(ENV_NOT_READ)
    value = env(facts, "GLOO_SOCKET_IFNAME")
    if facts.net.netdevs is None:
        return unknown("interfaces were not read")
    if value and value != "auto":
        known = all(facts.net.netdev(name.strip()) for name in value.split(","))
        mend = "ip -br address   # names the interfaces"
        return (
            ok(f"GLOO_SOCKET_IFNAME={value}") if known else fail(f"GLOO_SOCKET_IFNAME={value}: no such interface", mend)
        )
    if not env(facts, "VLLM_HOST_IP"):
        return skip("VLLM_HOST_IP is not set: no node")
    physical = [dev.name for dev in facts.net.netdevs if dev.ipv4 and dev.kind in {"physical", "bond", "vlan", "wlan"}]
    if len(physical) < 2:
        return ok("one network")
    dev = facts.net.holding(env(facts, "VLLM_HOST_IP"))
    mend = f"GLOO_SOCKET_IFNAME={dev.name if dev else 'INTERFACE'}"
    return warn(f"not set, and there are {', '.join(physical)}", mend)


@check("env.plugin", "the network plugin is there", severity=Severity.WARNING, scope=ENV, needs=("env", "stack"))
@when_set("NCCL_NET_PLUGIN")
def plugin(facts: NodeFacts) -> Verdict:
    """A plugin that cannot be loaded is no error to NCCL: it uses its own network. One that is loaded chooses devices
    and GID by its own rules.
    """
    value = effective_env(facts)["NCCL_NET_PLUGIN"]
    if value.lower() == "none":
        return ok("NCCL_NET_PLUGIN=none")
    if facts.stack.plugin is None:
        return unknown(f"NCCL_NET_PLUGIN={value}: the file was not looked for")
    if facts.stack.plugin:
        return ok(f"{facts.stack.plugin}: it chooses devices and GID")
    return warn(f"NCCL_NET_PLUGIN={value} is not there", "remove NCCL_NET_PLUGIN, or set it to none")


@check(
    "env.gdr-level",
    "GPUDirect is not asked of a GB10",
    severity=Severity.INFO,
    scope=ENV,
    needs=("env", "gpu", "machine", "stack"),
)
@when_set("NCCL_NET_GDR_LEVEL")
def gdr_level(facts: NodeFacts) -> Verdict:
    """A GB10 shares its memory with the processor: there is no GPUDirect RDMA, and nothing is lost by that."""
    value = effective_env(facts)["NCCL_NET_GDR_LEVEL"]
    return ok(f"NCCL_NET_GDR_LEVEL={value} has no effect on GB10" if is_spark(facts) else f"NCCL_NET_GDR_LEVEL={value}")


@check(
    "env.ucx-devices",
    "UCX_NET_DEVICES names what is there",
    severity=Severity.WARNING,
    scope=ENV,
    needs=("env", "net", "rdma"),
)
@when_set("UCX_NET_DEVICES")
def ucx_devices(facts: NodeFacts) -> Verdict:
    """UCX takes interfaces (eth0) and ports of HCAs (mlx5_0:1). A name that is neither leaves it without transport."""
    value = env(facts, "UCX_NET_DEVICES")
    if value in {"all", "auto"}:
        return ok(f"UCX_NET_DEVICES={value}")
    if facts.net.netdevs is None or facts.rdma.devices is None:
        return unknown("interfaces or RDMA devices were not read")
    known = {dev.name for dev in facts.net.netdevs} | {item.name for item in facts.rdma.devices}
    absent = [word for item in value.split(",") if (word := item.strip().partition(":")[0]) and word not in known]
    if absent:
        return warn(f"UCX_NET_DEVICES={value}: no {', '.join(absent)} here", "correct it: rdma link; ip -br link")
    return ok(f"UCX_NET_DEVICES={value}")


@check("env.gpu-indices", "CUDA_VISIBLE_DEVICES names GPUs that are there", scope=ENV, needs=("env", "gpu"))
@when_set("CUDA_VISIBLE_DEVICES")
def gpu_indices(facts: NodeFacts) -> Verdict:
    """CUDA stops at the first index that does not exist: fewer GPUs are seen, without a word."""
    if facts.gpu.gpus is None:
        return unknown("GPUs were not read: nvidia-smi")
    value = env(facts, "CUDA_VISIBLE_DEVICES")
    beyond = [
        word for item in value.split(",") if (word := item.strip()).isdigit() and int(word) >= len(facts.gpu.gpus)
    ]
    said = f"CUDA_VISIBLE_DEVICES={value}, and there are {len(facts.gpu.gpus)} GPUs"
    return fail(said, "CUDA_VISIBLE_DEVICES=0   # nvidia-smi -L names them") if beyond else ok(said)


CHECKS: tuple[Check[NodeFacts], ...] = (
    ib_disable, net, hca_exists, interface_exists, interface_prefix, gloo_interface, plugin, gdr_level, ucx_devices,
    gpu_indices,
)  # fmt: skip
