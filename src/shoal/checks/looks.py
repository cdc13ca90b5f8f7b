"""What several checks ask of the facts: is this a GPU node, does it have RDMA, is it a machine of its own."""

import functools
from collections.abc import Callable, Mapping

from shoal.checks.base import Verdict, skip, unknown
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice
from shoal.nccl.environment import effective
from shoal.nccl.variables import LAST, Version, parse_version

GIB = 1 << 30
ENV_NOT_READ = "the environment was not read: env"
Judge = Callable[[NodeFacts], Verdict]


def gib(size: float) -> str:
    """Bytes in GiB, for people."""
    return f"{size / GIB:.1f} GiB"


def has_gpu(facts: NodeFacts) -> bool:
    """Whether it has an NVIDIA GPU, seen by the driver or on the PCI bus."""
    return bool(facts.gpu.gpus or facts.gpu.cards)


def has_rdma(facts: NodeFacts) -> bool | None:
    """Whether the kernel has an RDMA device; None where nobody looked."""
    return None if facts.rdma.devices is None else bool(facts.rdma.devices)


def is_node(facts: NodeFacts) -> bool:
    """Whether it is made to serve: it has GPUs or RDMA, or is told to be a node. A laptop is judged more mildly."""
    return has_gpu(facts) or bool(facts.rdma.devices) or bool((facts.env or {}).get("RAY_MODE"))


def is_metal(facts: NodeFacts) -> bool | None:
    """Whether it is no virtual machine; None where that is not known."""
    return None if facts.machine.virtual is None else facts.machine.virtual == ""


def is_spark(facts: NodeFacts) -> bool:
    """Whether it is a GB10 machine (DGX Spark), where memory is shared and GPUDirect RDMA does not exist."""
    return any("GB10" in gpu.name for gpu in facts.gpu.gpus or ()) or "Spark" in (facts.machine.product or "")


def active_hcas(facts: NodeFacts) -> tuple[RdmaDevice, ...]:
    """The devices with an ACTIVE port."""
    return tuple(item for item in facts.rdma.devices or () if any(port.is_active for port in item.ports))


def env(facts: NodeFacts, name: str) -> str:
    """A variable's value without blanks; empty where it is not set or not known."""
    return (facts.env or {}).get(name, "").strip()


def nccl_version(facts: NodeFacts) -> Version:
    """The node's NCCL; the newest known where nobody knows."""
    return parse_version(facts.stack.nccl or "") or LAST


def effective_env(facts: NodeFacts) -> Mapping[str, str]:
    """What NCCL finds on this node: its configuration files, and the environment over them."""
    return effective(facts.env, facts.stack.nccl_conf)


def when_set(name: str) -> Callable[[Judge], Judge]:
    """Judge only where this variable is set."""

    def wrap(judge: Judge) -> Judge:
        @functools.wraps(judge)
        def judged(facts: NodeFacts) -> Verdict:
            if facts.env is None:
                return unknown(ENV_NOT_READ)
            return judge(facts) if effective_env(facts).get(name, "").strip() else skip(f"{name} is not set")

        return judged

    return wrap
