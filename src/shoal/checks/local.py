"""What must be true of this machine before ``shoal up --local`` starts anything."""

from dataclasses import dataclass

from shoal.checks.base import Check, Finding, Verdict, fail, ok, run_checks, unknown
from shoal.facts.meminfo import GIB
from shoal.facts.model_folder import ModelFolder
from shoal.facts.system import Listener, Memory, overlaps
from shoal.plan.node import ClusterPlan
from shoal.state.status import ExecutorKind, Versions

# Resident sizes at rest with vLLM 0.32 on CPU: API server and engine core 1.3 GiB together, a node's Ray 0.6 GiB, and a
# rank 0.8 GiB besides weights and KV cache (docs/explanation/numbers.md). Loading takes a little more.
BASE, PER_NODE = int(1.4 * GIB), int(1.6 * GIB)


@dataclass(frozen=True)
class LocalFacts:
    """What was read for it. ``model`` is None for a model that is no local folder."""

    plan: ClusterPlan
    versions: Versions
    memory: Memory | None
    listeners: tuple[Listener, ...]
    loopback_missing: tuple[str, ...]
    model: ModelFolder | None


def memory_needed(nodes: int, weights: int, kv_cache: int) -> int:
    """Bytes that N ranks on one machine need; ``kv_cache`` is one rank's."""
    return BASE + nodes * (PER_NODE + kv_cache) + 2 * weights


def kv_cache_bytes(plan: ClusterPlan) -> int:
    """The KV cache of one rank, as vLLM is told; 0 where it chooses itself."""
    words = plan.engine.arguments
    flag = "--kv-cache-memory-bytes"
    return int(words[words.index(flag) + 1]) if flag in words else 0


def engine_installed(facts: LocalFacts) -> Verdict:
    """Are vLLM and torch here, and Ray where the ranks live in it?"""
    ray = {"ray": facts.versions.ray} if facts.plan.executor is ExecutorKind.RAY else {}
    found = {**ray, "vllm": facts.versions.vllm, "torch": facts.versions.torch}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return fail(f"not installed in this Python: {', '.join(missing)}", "make engine")
    return ok(", ".join(f"{name} {version}" for name, version in found.items()))


def memory_suffices(facts: LocalFacts) -> Verdict:
    """Is there room for all ranks?"""
    if facts.memory is None:
        return unknown("/proc/meminfo cannot be read")
    weights = facts.model.weight_bytes if facts.model else 0
    need = memory_needed(len(facts.plan.nodes), weights, kv_cache_bytes(facts.plan))
    nodes = len(facts.plan.nodes)
    said = f"{facts.memory.usable / GIB:.1f} GiB available, about {need / GIB:.1f} GiB needed for {nodes} node(s)"
    if facts.memory.usable < need:
        fewer = ", or use fewer nodes: shoal up --local --nodes 1" if nodes > 1 else ""
        return fail(said, "close other programs" + fewer)
    return ok(said)


def ports_free(facts: LocalFacts) -> Verdict:
    """Is every port free that something of ours will listen on?"""
    clashes = [
        (address, port, purpose, other)
        for address, port, purpose in facts.plan.listening()
        for other in facts.listeners
        if other.port == port and overlaps(other.address, address)
    ]
    if not clashes:
        return ok(f"{len(facts.plan.listening())} ports")
    said = [
        f"{address}:{port} ({purpose}) is taken by {other.program}" + (f" (pid {other.pid})" if other.pid else "")
        for address, port, purpose, other in clashes
    ]
    flags = dict.fromkeys(_flag(purpose) for _, _, purpose, _ in clashes)
    return fail("; ".join(dict.fromkeys(said)), f"stop that program, or: shoal up --local {' '.join(flags)}")


def _flag(purpose: str) -> str:
    """The flag that moves this port elsewhere."""
    if purpose == "the API":
        return "--port PORT"
    return "--agent-port PORT" if purpose == "supervisor" or purpose.startswith("agent of") else "--port-base PORT"


def addresses_exist(facts: LocalFacts) -> Verdict:
    """Can the loopback addresses be used?"""
    if facts.loopback_missing:
        missing = ", ".join(facts.loopback_missing)
        return fail(f"cannot bind {missing}", f"sudo ip addr add {facts.loopback_missing[0]}/8 dev lo")
    return ok(", ".join(node.address for node in facts.plan.nodes))


def model_sound(facts: LocalFacts) -> Verdict:
    """Is the model folder whole?"""
    if facts.model is None:
        return ok("a hub name: vLLM looks for it")
    if facts.model.problems:
        return fail("; ".join(facts.model.problems), "fetch the model again, or name another with --model")
    return ok(f"{facts.model.architecture}, {facts.model.weight_bytes / GIB:.2f} GiB of weights")


CHECKS: tuple[Check[LocalFacts], ...] = (
    Check("local.engine", "vLLM, Ray and torch are installed", engine_installed),
    Check("local.addresses", "loopback addresses can be used", addresses_exist),
    Check("local.ports", "all ports are free", ports_free),
    Check("local.model", "the model folder is whole", model_sound),
    Check("local.memory", "memory suffices for all ranks", memory_suffices),
)


def check_local(facts: LocalFacts) -> tuple[Finding, ...]:
    """All findings about this machine."""
    return run_checks(CHECKS, facts)
