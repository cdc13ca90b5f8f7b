"""The lab's plans: cables, services, roles, and what the supervisor is told to start."""

from pathlib import Path

import pytest

from shoal.engine.launch import Request, argv
from shoal.errors import UsageError
from shoal.lab import clock, namespace, plan, processes
from shoal.lab.init import Service, pause, read_services, write_services
from shoal.lab.network import Net
from shoal.lab.plan import Wish
from shoal.plan.local import plan_local
from shoal.plan.node import ClusterPlan

PLACES = plan.Places(Path("/state/lab"), Path("/tmp/shoal-lab-ab12"), Path("/cache"))
NET = Net("ab12", "192.168.100")
WISH = Wish(2, "namespace", "sim")


def planned(kind: plan.Kind = "namespace") -> ClusterPlan:
    wish = Wish(2, kind, "sim")
    return plan_local(plan.local_spec(wish, PLACES, plan.SIMULATED, "simulated", "run"))


def test_a_host_gets_a_namespace_and_a_cable() -> None:
    """Each command names the lab's tag, so two labs never share a name."""
    assert [" ".join(argv) for argv in NET.plug("n2", 2)] == [
        "ip netns add shoal-ab12-n2",
        "ip -n shoal-ab12-switch link add port2 type veth peer name mesh0 netns shoal-ab12-n2",
        "ip -n shoal-ab12-switch link set port2 master br0",
        "ip -n shoal-ab12-switch link set port2 up",
        "ip -n shoal-ab12-n2 addr add 192.168.100.2/24 dev mesh0",
        "ip -n shoal-ab12-n2 link set mesh0 up",
        "ip -n shoal-ab12-n2 link set lo up",
        "ip -n shoal-ab12-n2 route add default via 192.168.100.254",
    ]


def test_interface_names_fit_the_kernel() -> None:
    """An interface's name has at most 15 bytes."""
    named = [argv[argv.index("dev") + 1] for argv in NET.make_switch() if "dev" in argv]
    assert [len(name) <= 15 for name in (*named, "port16")] == [True, True]


@pytest.mark.parametrize(("up", "word"), [(True, "up"), (False, "down")])
def test_a_cable_is_pulled_at_the_switch(up: bool, word: str) -> None:
    """The host sees its carrier go, as with a cable that is pulled."""
    assert NET.cable(2, up=up) == ("ip", "-n", "shoal-ab12-switch", "link", "set", "port2", word)


def test_services_survive_their_file() -> None:
    """What is written for a host's first process is what it reads."""
    services = (Service("agent", ("python", "-m", "shoal", "agent"), {"A": "1"}, "/log"),)
    assert read_services(write_services(services)) == services


@pytest.mark.parametrize(
    ("before", "lived", "wait"),
    [(0.0, 1.0, 0.1), (0.1, 1.0, 0.2), (0.2, 9.9, 0.4), (0.4, 10.0, 0.1), (50.0, 1.0, 60.0)],
)
def test_pauses_are_dockers(before: float, lived: float, wait: float) -> None:
    """A tenth of a second, doubled up to a minute, forgotten after ten seconds of life."""
    assert pause(before, lived) == wait


def test_the_head_has_agent_and_supervisor_and_a_worker_only_an_agent() -> None:
    """The agent has a process tree of its own; the supervisor sees the host's, where Ray's driver seeks its raylet."""
    cluster = planned()
    hosts = plan.hosts_of(cluster, "namespace", PLACES)
    head, worker = (plan.services(cluster, host, PLACES.logs, "python", {"HOME": "/root"}, WISH) for host in hosts)
    assert [(item.name, item.argv) for item in (*head, *worker)] == [
        ("agent", (*namespace.CONTAINER, "python", "-m", "shoal", "agent")),
        ("serve", ("python", "-m", "shoal", "serve")),
        ("agent", (*namespace.CONTAINER, "python", "-m", "shoal", "agent")),
    ]
    assert [item.log for item in (*head, *worker)] == [f"/state/lab/logs/{name}.log" for name in ("n1", "engine", "n2")]
    assert {name: worker[0].env[name] for name in ("VLLM_HOST_IP", "RAY_ADDRESS", "RAY_MODE", "SHOAL_STATE_DIR")} == {
        "VLLM_HOST_IP": "192.168.100.2",
        "RAY_ADDRESS": "192.168.100.1:27000",
        "RAY_MODE": "worker",
        "SHOAL_STATE_DIR": "/tmp/shoal-lab-ab12/n2/disk/state",
    }


def test_settings_of_the_user_come_last() -> None:
    """What `--set` says reaches agents and supervisor, and overrides the lab's own."""
    cluster = planned()
    head = plan.hosts_of(cluster, "namespace", PLACES)[0]
    extra = {"SHOAL_LOST_AFTER": "5", "SHOAL_RESTARTS": "3"}
    wish = Wish(2, "namespace", "sim", settings=extra)
    found = [
        {name: item.env[name] for name in extra}
        for item in plan.services(cluster, head, PLACES.logs, "python", {}, wish)
    ]
    assert found == [extra, extra]


def test_the_simulated_engine_takes_vllms_place() -> None:
    """The request names another server, with the arguments that vLLM would get and its own."""
    request = plan.request_of(planned(), Wish(2, "namespace", "sim", load_seconds=1.5))
    assert argv("python", request)[:3] == ("python", "-m", "shoal.lab.sim.server")
    assert request.arguments[-2:] == ("--sim-load-seconds", "1.5")
    assert "shoal.engine.guard.KeyGuard" in request.arguments
    assert Request(**{**vars(request), "server": Request("m", "e", (), {}).server}).server.startswith("vllm.")


def test_loopback_hosts_have_loopback_addresses() -> None:
    """Without root the hosts are 127.0.0.1, 127.0.0.2, ..."""
    assert [host.address for host in plan.hosts_of(planned("loopback"), "loopback", PLACES)] == [
        "127.0.0.1",
        "127.0.0.2",
    ]


@pytest.mark.parametrize("count", [0, 17])
def test_a_lab_of_no_sensible_size_is_refused(count: int) -> None:
    """One to sixteen hosts."""
    with pytest.raises(UsageError, match="expected 1 to 16"):
        plan.check_hosts(count)


ARGV = {
    "agent": ["/venv/bin/python", "-m", "shoal", "agent"],
    "supervisor": ["/venv/bin/python", "-m", "shoal", "serve"],
    "raylet": ["/venv/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=/tmp/ray/x"],
    "gcs": ["/venv/ray/core/src/ray/gcs/gcs_server", "--log_dir=/tmp/ray/x"],
    "api": ["/venv/bin/python", "-m", "shoal.lab.sim.server", "--model", "simulated"],
    "engine": ["SIMULATED::EngineCore"],
    "rank": ["ray::SimulatedWorker.run"],
}


def test_a_clock_that_jumps_is_asked_for() -> None:
    """With a movable clock agent and supervisor are run by another module, and play the same roles."""
    cluster = planned()
    head = plan.hosts_of(cluster, "namespace", PLACES)[0]
    wish = Wish(2, "namespace", "sim", clock=True)
    found = [item.argv for item in plan.services(cluster, head, PLACES.logs, "python", {}, wish)]
    clocked = ("python", "-m", "shoal.lab.clock", "/tmp/shoal-lab-ab12/n1/clock")
    assert found == [(*namespace.CONTAINER, *clocked, "agent"), (*clocked, "serve")]
    assert [processes.plays("agent", [*clocked, "agent"]), processes.plays("supervisor", [*clocked, "serve"])] == [
        True
    ] * 2


def test_a_moved_clock_follows_its_file(tmp_path: Path) -> None:
    """It is off by what the file says at that moment, and right where nobody has written one."""
    now = clock.moved(lambda: 100.0, tmp_path / "clock")
    assert now() == 100.0
    (tmp_path / "clock").write_text(clock.offset(3600))
    assert now() == 3700.0


@pytest.mark.parametrize("role", processes.ROLES)
def test_a_process_plays_one_role(role: str) -> None:
    """Each command line is of exactly one role."""
    assert [name for name in processes.ROLES if processes.plays(name, ARGV[role])] == [role]


@pytest.mark.parametrize(
    ("role", "argv"),
    [
        ("api", ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"]),
        ("engine", ["VLLM::EngineCore"]),
        ("rank", ["ray::RayWorkerProc.run"]),
    ],
)
def test_vllms_processes_play_the_same_roles(role: str, argv: list[str]) -> None:
    """Faults strike vLLM as they strike the simulation."""
    assert [name for name in processes.ROLES if processes.plays(name, argv)] == [role]


def test_the_wrapper_of_a_service_is_not_the_service() -> None:
    """`unshare ... shoal agent` only waits for the agent."""
    assert not processes.plays("agent", [*namespace.CONTAINER, *ARGV["agent"]])


def test_a_wrong_role_names_the_nearest() -> None:
    """A typing error is answered with the right word."""
    with pytest.raises(UsageError) as caught:
        processes.check_role("raylett")
    assert caught.value.why.startswith('did you mean "raylet"')


def test_every_host_knows_the_others_by_name() -> None:
    """The hosts' file names all of them."""
    hosts = plan.hosts_of(planned(), "namespace", PLACES)
    assert namespace.hosts_file(hosts) == "127.0.0.1 localhost\n192.168.100.1 n1\n192.168.100.2 n2\n"


def test_a_folder_that_something_is_mounted_on_is_known(tmp_path: Path) -> None:
    """A mount point of any process is told from a plain folder: removing it would take the mount from that process."""
    assert (namespace.is_mounted_on(Path("/proc")), namespace.is_mounted_on(tmp_path)) == (True, False)
