"""The plan of a cluster on many hosts: what is decided, and what is refused before anything is changed."""

import json

import pytest
from tests.conftest import Golden
from tests.unit.fleet_hosts import COMPOSE, PROCESS, PYZ, facts, masked, pair, plan, seen, standing, stands, without

from shoal.errors import ConfigError, PreconditionFailed
from shoal.plan.fleet import FleetPlan, PlannedFile
from shoal.plan.fleet_changes import Move, changes, difference, leaving, not_at_boot
from shoal.state.standing import BootSeen, DockerSeen, PythonSeen, UnitState


@pytest.mark.parametrize(("runtime", "text"), [("process", PROCESS), ("compose", COMPOSE)])
def test_the_whole_plan(golden: Golden, runtime: str, text: str) -> None:
    """Both runtimes, whole: files, secrets by reference, environment with reasons, ports, commands."""
    golden(f"fleet/{runtime}.json", json.loads(masked(plan(text), plan(text).model_dump_json())))


def test_a_plan_is_read_back_as_it_was() -> None:
    """A release holds its plan, and rollback applies that one."""
    made = plan()
    assert FleetPlan.model_validate_json(made.model_dump_json()) == made


def refused(text: str = PROCESS, **how: object) -> tuple[str, str]:
    with pytest.raises(PreconditionFailed) as raised:
        plan(text, **how)  # type: ignore[arg-type]
    assert raised.value.why == "nothing was changed on the 2 host(s) of shoal.yaml"
    return raised.value.what, raised.value.fix


def test_an_address_that_another_host_has() -> None:
    """It is said whose it is, and which ones this host has."""
    found = seen(facts("gpu-1", "10.0.0.2"), facts("gpu-2", "10.0.0.9"))
    what, _ = refused(PROCESS.replace("ssh: me@one", "fabric: 10.0.0.1"), found=found)
    assert what.splitlines() == [
        "gpu-1 does not have the fabric address 10.0.0.1; it has 10.0.0.2",
        "gpu-2 does not have the fabric address 10.0.0.2; it is gpu-1's; it has 10.0.0.9",
    ]


def test_hosts_that_found_no_common_network() -> None:
    """An address that is left to shoal, and that it does not find, is asked for."""
    found = seen(facts("gpu-1", "10.1.0.1"), facts("gpu-2", "10.0.0.2"))
    assert refused(found=found) == (
        "gpu-1: no address was found that the other hosts reach", "write `fabric: ADDRESS` of gpu-1 in shoal.yaml",
    )  # fmt: skip


def test_hosts_that_are_not_fit() -> None:
    """Architecture, room, rights and a Python without vLLM: all of it at once."""
    one = standing(architecture="aarch64", versions=PythonSeen(error="No such file"))
    two = standing(free=1 << 20, writable=False, versions=PythonSeen(python="3.12.1"))
    what, fix = refused(found=pair(gpu_1=one, gpu_2=two))
    assert what.splitlines() == [
        "the hosts are of different architectures (gpu-1: aarch64; gpu-2: x86_64)",
        "gpu-1: /opt/vllm/bin/python does not run: No such file",
        "gpu-2: me may not write in /home/me",
        "gpu-2: /home/me has 1 MiB of room, and 24 MiB are needed",
        "gpu-2: /opt/vllm/bin/python has no vLLM",
    ]
    assert "ssh gpu-2 df -h /home/me" in fix


def test_hosts_without_docker() -> None:
    """No Docker, no right to use it, no Compose: each with its own remedy."""
    docker = standing().docker
    said = "Got permission denied while trying to connect to the Docker daemon socket"
    one = standing(docker=DockerSeen(error=("docker: not found",)))
    two = standing(docker=DockerSeen(error=(said,)))
    assert refused(COMPOSE, found=pair(gpu_1=one, gpu_2=two)) == (
        f"gpu-1: Docker does not answer: docker: not found\ngpu-2: Docker does not answer: {said}",
        (
            "ssh me@one sudo apt install docker.io docker-compose-v2   # or: sudo systemctl start docker\n"
            "     ssh gpu-2 sudo usermod -aG docker me"
        ),
    )
    bare = standing(docker=docker.model_copy(update={"compose": ()}))
    assert refused(COMPOSE, found=pair(gpu_1=bare))[0] == "gpu-1: Docker has no Compose"


def test_what_the_file_asks_for_and_cannot_be() -> None:
    """More ranks than GPUs, an endpoint without a key, no GPU at all."""
    wide = PROCESS.replace("model: /data/model", "model: {name: /data/model, tensor-parallel: 8}")
    with pytest.raises(ConfigError, match=r"8 rank\(s\) are asked for, and the hosts have 2 GPU"):
        plan(wide)
    with pytest.raises(ConfigError, match=r"serving\.api-key: expected generate, env:VARIABLE or file:PATH"):
        plan(f"{PROCESS}serving: {{api-key: none}}\n")
    with pytest.raises(ConfigError, match="no host offers a GPU"):
        plan(PROCESS.replace("gpus: 1", "gpus: 0").replace("role: head", "role: head, gpus: 0"))


def test_a_host_without_gpus_has_one_rank() -> None:
    """Where no GPU is seen and none is named, the CPU is one rank."""
    found = seen(without(facts("gpu-1", "10.0.0.1")), without(facts("gpu-2", "10.0.0.2")))
    assert [node.gpus for node in plan(found=found).nodes] == [1, 1]


def started(text: str, before: str = PROCESS) -> list[tuple[str, str]]:
    """What starts again where one file takes another's place."""
    return [(move.node, move.unit) for move in changes(plan(text), stands(plan(before))).starts]


def test_no_change_starts_nothing() -> None:
    """The same file on hosts where it runs: nothing is pushed, switched or started."""
    made = plan()
    planned = changes(made, stands(made))
    assert (planned.nothing, planned.starts, difference(made, stands(made))) == (True, (), ())


def test_a_serving_option_starts_the_supervisor_alone() -> None:
    """Neither how the model is split nor the API's port concerns an agent: the page asks for the port."""
    split = PROCESS.replace("model: /data/model", "model: {name: /data/model, tensor-parallel: 2}")
    assert started(split) == [("gpu-1", "engine")]
    assert started(f"{PROCESS}serving: {{port: 9000}}\n") == [("gpu-1", "engine")]


def test_a_workers_variable_starts_its_agent_and_the_engine() -> None:
    """The ranks of the engine go with an agent's Ray; the head's agent is left alone."""
    text = PROCESS.replace("gpus: 1", "gpus: 1, env: {NCCL_DEBUG: INFO}")
    assert started(text) == [("gpu-2", "agent"), ("gpu-1", "engine")]


def test_another_shoal_starts_everything() -> None:
    """Agent and supervisor are of the file that changed."""
    newer = (PYZ.model_copy(update={"sha256": "e" * 64}),)
    planned = changes(plan(head=newer, worker=newer), stands(plan()))
    assert [(move.node, move.unit) for move in planned.starts] == [
        ("gpu-1", "agent"), ("gpu-2", "agent"), ("gpu-1", "engine"),
    ]  # fmt: skip


def test_what_has_ended_starts_again() -> None:
    """A program that is gone is told from one that was never there, and is not stopped before."""
    made = plan()
    gone = stands(made, gpu_2={"units": {"agent": UnitState(digest=made.nodes[1].units[0].digest, pid=9)}})
    why = "the agent of gpu-2 starts again"
    assert changes(made, gone).starts == (
        Move("gpu-2", "agent", "it has ended", runs=False), Move("gpu-1", "engine", why, runs=True),
    )  # fmt: skip


def test_a_reboot_is_planned_for() -> None:
    """A process comes back by cron, whose line does not change with the release; Docker needs none."""
    made, docker = plan(), plan(COMPOSE)
    line = "/opt/vllm/bin/python /home/me/.local/share/shoal/lab/current/shoal.pyz boot"
    assert ([node.boot for node in made.nodes], [node.boot for node in docker.nodes]) == ([line] * 2, ["", ""])
    there = {"boot": BootSeen(asked=True, command=line)}
    found = stands(made, gpu_1=there, gpu_2={"boot": BootSeen(asked=True)})
    assert (changes(made, found).boots, difference(made, found)) == (
        ("gpu-2",), ("gpu-2: crontab: what is started at a boot",),
    )  # fmt: skip
    assert changes(made, stands(made, gpu_1=there, gpu_2=there)).nothing
    assert not_at_boot(made, found) == ""


def test_hosts_without_cron_are_named() -> None:
    """They are brought up all the same, and it is said what starts them after a reboot."""
    made = plan()
    none = {"boot": BootSeen(asked=True, why="it has no cron")}
    found = stands(made, gpu_1=none, gpu_2=none)
    assert changes(made, found).nothing
    assert not_at_boot(made, found) == (
        "after a reboot of these hosts only `shoal up` starts their programs again (gpu-1, gpu-2: it has no cron); "
        "install and start cron there (apt install cron), then: shoal up"
    )


def test_what_has_no_place_is_taken_down() -> None:
    """A supervisor on a host that is a worker now, and a host that is not in the file any more."""
    made = plan()
    stray = stands(made, gpu_2={"units": {**stands(made)["gpu-2"].units, "engine": UnitState(runs=True, digest="x")}})
    assert changes(made, stray).ends == (("gpu-2", "engine"),)
    alone = PROCESS.replace("  - {name: gpu-2, fabric: 10.0.0.2, gpus: 1}\n", "")
    smaller = plan(alone, seen(facts("gpu-1", "10.0.0.1")))
    assert [node.name for node in leaving(smaller, made)] == ["gpu-2"]
    assert "gpu-2: no longer in the file: it is taken down" in difference(smaller, stands(made))


def test_the_difference_in_words() -> None:
    """Release, variables with their reasons, files line by line, and what starts for it."""
    registry = PlannedFile(path="models.yaml", mode=0o644, text="a:\n  model: b\n", why="the registry")
    other = registry.model_copy(update={"text": "a:\n  model: c\n"})
    before = plan(head=(PYZ, registry))
    after = plan(PROCESS.replace("gpus: 1", "gpus: 1, env: {NCCL_DEBUG: INFO}"), head=(PYZ, other))
    assert [line for line in difference(after, stands(before)) if "@@" not in line] == [
        f"gpu-1: release {before.digest} -> {after.digest}",
        "  --- models.yaml", "  +++ models.yaml", "   a:", "  -  model: b", "  +  model: c",
        f"gpu-2: release {before.digest} -> {after.digest}",
        "  + NCCL_DEBUG=INFO   # shoal.yaml: env of gpu-2",
        "gpu-2: agent starts again: what it is started with has changed",
        "gpu-1: engine starts again: what it is started with has changed",
    ]  # fmt: skip
