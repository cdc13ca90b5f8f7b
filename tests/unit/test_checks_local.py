"""What must be true of this machine before local nodes are started."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.checks.base import Finding, Status
from shoal.checks.local import CHECKS, GIB, LocalFacts, check_local, memory_needed
from shoal.facts.model_folder import ModelFolder
from shoal.facts.system import Listener, Memory
from shoal.plan.local import LocalSpec, plan_local
from shoal.plan.parallel import Parallel
from shoal.spec.registry import ModelEntry
from shoal.state.status import ExecutorKind, Versions
from shoal.ui.verbs.up import verb as up

VERSIONS = Versions(shoal="0.1.0", python="3.11.7", ray="2.60.0", vllm="0.32.0", torch="2.11.0")
SPEC = LocalSpec(
    nodes=2,
    model=ModelEntry("smollm2", "package:x/y.gguf"),
    model_path="/models/smollm2",
    parallel=Parallel(1, 2, "why"),
    run_id="0",
    temp_dir=Path("/t"),
    state_dir=Path("/s"),
    cache_dir=Path("/c"),
    cores=4,
)
MODEL = ModelFolder(Path("/models/smollm2"), architecture="LlamaForCausalLM", weight_bytes=GIB // 4)
FIT = LocalFacts(plan_local(SPEC), VERSIONS, Memory(64 * GIB, 32 * GIB), (), (), MODEL)


def found(check: str, facts: LocalFacts) -> tuple[Status, str, str]:
    """Status, evidence and fix of one check."""
    finding = next(item for item in check_local(facts) if item.id == f"local.{check}")
    return finding.status, finding.evidence, finding.fix


def test_without_ray_nobody_asks_for_it() -> None:
    """Where the ranks live in vLLM's own processes, a missing Ray is no fault."""
    facts = replace(FIT, versions=VERSIONS.model_copy(update={"ray": None}))
    assert found("engine", facts)[:2] == (Status.FAIL, "not installed in this Python: ray")
    mp = replace(facts, plan=plan_local(replace(SPEC, executor=ExecutorKind.MP)))
    assert found("engine", mp)[:2] == (Status.OK, "vllm 0.32.0, torch 2.11.0")


def taken(*listeners: Listener) -> tuple[Status, str, str]:
    return found("ports", replace(FIT, listeners=listeners))


def test_a_fit_machine() -> None:
    """On a fit machine every check passes and says on what evidence."""
    assert check_local(FIT) == (
        Finding(
            "local.engine", "vLLM, Ray and torch are installed", Status.OK, "ray 2.60.0, vllm 0.32.0, torch 2.11.0"
        ),
        Finding("local.addresses", "loopback addresses can be used", Status.OK, "127.0.0.1, 127.0.0.2"),
        Finding("local.ports", "all ports are free", Status.OK, "18 ports"),
        Finding("local.model", "the model folder is whole", Status.OK, "LlamaForCausalLM, 0.25 GiB of weights"),
        Finding(
            "local.memory",
            "memory suffices for all ranks",
            Status.OK,
            "32.0 GiB available, about 6.1 GiB needed for 2 node(s)",
        ),
    )


def test_engine_missing() -> None:
    """Whatever of Ray, vLLM and torch is missing is named."""
    facts = replace(FIT, versions=VERSIONS.model_copy(update={"vllm": None, "torch": None}))
    assert found("engine", facts) == (Status.FAIL, "not installed in this Python: vllm, torch", "make engine")


def test_memory_short() -> None:
    """Too little memory is told with both numbers, and a control group's limit counts."""
    facts = replace(FIT, memory=Memory(64 * GIB, 32 * GIB, limit=5 * GIB))
    assert found("memory", facts) == (
        Status.FAIL,
        "5.0 GiB available, about 6.1 GiB needed for 2 node(s)",
        "close other programs, or use fewer nodes: shoal up --local --nodes 1",
    )


def test_memory_unknown() -> None:
    """Memory that cannot be read is unknown, which is not a failure."""
    assert found("memory", replace(FIT, memory=None)) == (Status.UNKNOWN, "/proc/meminfo cannot be read", "")


def test_memory_boundary() -> None:
    """Exactly as much memory as needed suffices, a byte less does not."""
    need = memory_needed(2, MODEL.weight_bytes, 512 << 20)
    assert found("memory", replace(FIT, memory=Memory(need, need)))[0] is Status.OK
    assert found("memory", replace(FIT, memory=Memory(need, need - 1)))[0] is Status.FAIL


def test_addresses_missing() -> None:
    """Loopback addresses that are absent are named, with the command that adds the first."""
    assert found("addresses", replace(FIT, loopback_missing=("127.0.0.2", "127.0.0.3"))) == (
        Status.FAIL,
        "cannot bind 127.0.0.2, 127.0.0.3",
        "sudo ip addr add 127.0.0.2/8 dev lo",
    )


def test_model_damaged() -> None:
    """All problems of a model folder are told."""
    facts = replace(FIT, model=replace(MODEL, problems=("config.json is missing", "no weights")))
    assert found("model", facts) == (
        Status.FAIL,
        "config.json is missing; no weights",
        "fetch the model again, or name another with --model",
    )


def test_model_elsewhere() -> None:
    """A hub's name is left to vLLM, and its weights are not counted."""
    facts = replace(FIT, model=None)
    assert found("model", facts) == (Status.OK, "a hub name: vLLM looks for it", "")
    assert found("memory", facts)[1] == "32.0 GiB available, about 5.6 GiB needed for 2 node(s)"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_port_taken(address: str) -> None:
    """A port is taken by a socket on the same address, or on all addresses of either family."""
    assert taken(Listener(address, 8000, 42, "nginx")) == (
        Status.FAIL,
        "127.0.0.1:8000 (the API) is taken by nginx (pid 42)",
        "stop that program, or: shoal up --local --port PORT",
    )


@pytest.mark.parametrize(
    "listener",
    [
        Listener("127.0.0.2", 8000, 42, "nginx"),
        Listener("192.168.0.9", 8000, 42, "nginx"),
        Listener("::1", 8000, 42, "nginx"),
        Listener("127.0.0.1", 8002, 42, "nginx"),
    ],
)
def test_port_free(listener: Listener) -> None:
    """A socket on another address or port is in nobody's way."""
    assert taken(listener)[0] is Status.OK


@pytest.mark.parametrize(
    ("port", "purpose", "flag"),
    [
        (8000, "the API", "--port"),
        (8700, "agent of head", "--agent-port"),
        (8701, "supervisor", "--agent-port"),
        (27000, "Ray GCS of head", "--port-base"),
        (27001, "Ray node manager of head", "--port-base"),
        (27006, "Ray metrics of head", "--port-base"),
    ],
)
def test_the_flag_that_helps(port: int, purpose: str, flag: str) -> None:
    """The fix names the flag that moves the port which is taken."""
    assert taken(Listener("127.0.0.1", port, None, "another user's process")) == (
        Status.FAIL,
        f"127.0.0.1:{port} ({purpose}) is taken by another user's process",
        f"stop that program, or: shoal up --local {flag} PORT",
    )


def test_many_ports_taken() -> None:
    """Every port that is taken is told once, with all the flags that help."""
    status, evidence, fix = taken(
        Listener("0.0.0.0", 8700, 1, "a"), Listener("::", 8700, 1, "a"), Listener("127.0.0.1", 8000, 2, "b")
    )
    assert (status, evidence.split("; "), fix) == (
        Status.FAIL,
        [
            "127.0.0.1:8700 (agent of head) is taken by a (pid 1)",
            "127.0.0.2:8700 (agent of worker-1) is taken by a (pid 1)",
            "127.0.0.1:8000 (the API) is taken by b (pid 2)",
        ],
        "stop that program, or: shoal up --local --agent-port PORT --port PORT",
    )


def test_fixes_name_real_flags() -> None:
    """Every flag in a fix is a flag of `shoal up`."""
    unfit = LocalFacts(
        plan=FIT.plan,
        versions=Versions(shoal="0", python="3"),
        memory=Memory(0, 0),
        listeners=tuple(Listener("::", port, None, "x") for port in (8000, 8700, 27000)),
        loopback_missing=("127.0.0.2",),
        model=replace(MODEL, problems=("no weights",)),
    )
    findings = check_local(unfit)
    assert {finding.status for finding in findings} == {Status.FAIL}
    named = {flag for finding in findings for flag in re.findall(r"--[\w-]+", finding.fix)}
    assert named <= {flag for option in up.params for flag in option.opts}
    assert {"--local", "--nodes", "--model", "--port", "--agent-port", "--port-base"} <= named


def test_ids() -> None:
    """Each check has an id of its own."""
    assert len({check.id for check in CHECKS}) == len(CHECKS)
