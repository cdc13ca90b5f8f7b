"""``shoal status -f``: which node asks the others, what is said where none can, and how it is watched."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.fleet_hosts import PROCESS, plan, stands

from shoal.errors import HostUnreachable
from shoal.host.fake import FakeHost
from shoal.host.hand import MARK
from shoal.ops.relay import MARK as RELAYED
from shoal.ops.status import FarStatus, reader
from shoal.spec.cluster import parse
from shoal.state.standing import Standing, UnitState
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.cli import main
from shoal.ui.verbs import status as verb

PLAN = plan()
ROOT = "/home/me/.local/share/shoal/lab"
ASK = f"/opt/vllm/bin/python {ROOT}/current/shoal.pyz relay"


def told(state: ClusterState = ClusterState.READY, **nodes: NodeState) -> ClusterStatus:
    """What a node says that has asked all others."""
    states = {"gpu-1": NodeState.UP, "gpu-2": NodeState.UP} | {
        name.replace("_", "-"): one for name, one in nodes.items()
    }
    return ClusterStatus(
        cluster="lab",
        state=state,
        endpoint="http://10.0.0.1:8000/v1",
        api_key_file=f"{ROOT}/state/api.key",
        nodes=tuple(
            NodeStatus(
                name=name,
                role="worker",
                address=f"10.0.0.{name[-1]}",
                state=one,
                detail="" if one == "up" else "silent",
            )
            for name, one in states.items()
        ),
        engine=EngineStatus(state=EngineState.READY, model="m"),
    )


class Machines:
    """The two hosts of the file, each with what it says of itself and, asked to, of all."""

    def __init__(self, **standings: dict[str, Any]) -> None:
        self.standings = stands(PLAN, **standings)
        self.hosts = {name: FakeHost(name=name) for name in self.standings}
        for name, standing in self.standings.items():
            self.stand(name, standing)

    def stand(self, name: str, standing: Standing) -> None:
        """How a host stands from now on."""
        answer = {"answers": [standing.model_dump(mode="json")], "error": None}
        self.hosts[name].replies["python3 -"] = MARK + json.dumps(answer) + "\n"

    def says(self, name: str, status: ClusterStatus) -> None:
        """What that host answers when it is to ask all others."""
        self.hosts[name].replies[ASK] = RELAYED + json.dumps({"status": status.model_dump(mode="json")}) + "\n"

    def status(self, key: str | None = None) -> FarStatus:
        """The status of these hosts."""
        return FarStatus(parse(PROCESS, "shoal.yaml"), self.hosts, key)

    def asked(self, name: str) -> int:
        """How often that host was to ask the others."""
        return len([call for call in self.hosts[name].calls if call[-1] == "relay"])


def test_the_head_asks_all() -> None:
    """The head's word is the status, and where all is well no other host is asked; the key's file is the operator's."""
    machines = Machines()
    machines.says("gpu-1", told())
    assert machines.status()() == told()
    assert (len(machines.hosts["gpu-1"].calls), machines.hosts["gpu-2"].calls) == (2, [])
    assert machines.status("/mine/api.key")() == told().model_copy(update={"api_key_file": "/mine/api.key"})
    record = json.loads(machines.hosts["gpu-1"].inputs[-1])["record"]
    assert [(node["name"], node["agent_url"]) for node in record["nodes"]] == [
        ("gpu-1", "http://10.0.0.1:8700"),
        ("gpu-2", "http://10.0.0.2:8700"),
    ]


def test_where_something_is_wrong_every_host_is_looked_at() -> None:
    """The head is asked once; of a node that is silent it is told whether ssh reaches it."""
    machines = Machines()
    machines.hosts["gpu-2"].reachable = False
    machines.says("gpu-1", told(ClusterState.DEGRADED, gpu_2=NodeState.LOST))
    found = machines.status()()
    assert [(node.name, node.detail) for node in found.nodes] == [
        ("gpu-1", ""),
        ("gpu-2", "silent; gpu-2 does not answer"),
    ]
    assert (machines.asked("gpu-1"), machines.asked("gpu-2")) == (1, 0)


def test_a_worker_asks_where_the_head_cannot() -> None:
    """Where ssh does not reach the head, or its agent has ended, a worker asks in its place; why is told."""
    machines = Machines()
    machines.hosts["gpu-1"].reachable = False
    machines.says("gpu-2", told(ClusterState.DEGRADED, gpu_1=NodeState.SUSPECT))
    found = machines.status()()
    assert [(node.name, node.detail) for node in found.nodes] == [
        ("gpu-1", "silent; gpu-1 does not answer"),
        ("gpu-2", ""),
    ]
    ended = Machines(gpu_1={"units": {"agent": UnitState(runs=False)}})
    ended.says("gpu-2", told(ClusterState.DEGRADED))
    assert ended.status()().state is ClusterState.DEGRADED
    assert (ended.asked("gpu-1"), ended.asked("gpu-2")) == (0, 1)


def test_who_told_it_last_is_asked_again() -> None:
    """Looking again costs one question; where it is not answered, the hosts are looked at anew."""
    machines = Machines()
    machines.says("gpu-1", told())
    status = machines.status()
    assert [status(), status(), status()] == [told()] * 3
    assert [len(machines.hosts[name].calls) for name in ("gpu-1", "gpu-2")] == [4, 0]
    machines.hosts["gpu-1"].reachable = False
    machines.says("gpu-2", told(ClusterState.DEGRADED))
    assert status() == told(ClusterState.DEGRADED)
    for _ in range(15):
        status()
    assert len([call for call in machines.hosts["gpu-2"].calls if call == ("python3", "-")]) == 1


def test_nobody_can_ask() -> None:
    """Where no node can ask the others, it is said what is known of each."""
    machines = Machines(gpu_2={"units": {}})
    found = machines.status()()
    assert (found.state, [(node.name, node.state, node.detail) for node in found.nodes]) == (
        ClusterState.DEGRADED,
        [
            ("gpu-1", NodeState.SUSPECT, "its agent runs, and could not be asked"),
            ("gpu-2", NodeState.LOST, "its agent does not run"),
        ],
    )
    machines.hosts["gpu-2"].reachable = False
    assert machines.status()().nodes[1].detail == "gpu-2 does not answer"


def test_nothing_is_up() -> None:
    """Where nothing runs on any host, or no release is there, the cluster is down."""
    down = ClusterStatus(cluster="lab", state=ClusterState.DOWN)
    assert Machines(gpu_1={"units": {}}, gpu_2={"units": {}}).status()() == down
    assert Machines(gpu_1={"plan": ""}, gpu_2={"plan": "{}"}).status("/mine/api.key")() == down


def test_no_host_can_be_asked() -> None:
    """Where ssh reaches none, that is the error, with all of them."""
    machines = Machines()
    for host in machines.hosts.values():
        host.reachable = False
    with pytest.raises(HostUnreachable, match="2 of 2 hosts: gpu-1, gpu-2"):
        machines.status()()


def test_the_local_cluster_needs_no_file(tmp_path: Path) -> None:
    """Without a file it is the local cluster's status."""
    found = reader(None, {"SHOAL_STATE_DIR": str(tmp_path)})()
    assert found == ClusterStatus(cluster="local", state=ClusterState.DOWN)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each look finds, one after the other; at the end comes Ctrl-C."""
    found: list[Any] = []

    def read() -> ClusterStatus:
        one = found.pop(0) if found else KeyboardInterrupt()
        if isinstance(one, BaseException):
            raise one
        assert isinstance(one, ClusterStatus)
        return one

    monkeypatch.setattr(verb, "reader", lambda file, env: read)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return found


def test_watching_tells_changes(looks: list[Any]) -> None:
    """Elsewhere than on a terminal a change is a line, and the code is that of the last look."""
    looks += [told(), told(), HostUnreachable("gpu-1 is away"), told(ClusterState.DEGRADED, gpu_2=NodeState.LOST)]
    done = CliRunner().invoke(main, ["status", "-f", "x.yaml", "--watch"])
    lines = [" ".join(line.split()[2:]) for line in done.output.splitlines()]
    assert (done.exit_code, lines) == (
        1,
        ["gpu-1 10.0.0.1 up", "gpu-2 10.0.0.2 up", "engine ready", "shoal gpu-1 is away", "gpu-2 10.0.0.2 lost silent"],
    )


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        (told(), 0, "cluster lab: ready"),
        (told(ClusterState.DEGRADED), 1, "API key   /home/me/.local/share/shoal/lab/state/api.key"),
        (ClusterStatus(cluster="lab", state=ClusterState.DOWN), 4, "bring it up with: shoal up -f x.yaml"),
    ],
)
def test_codes(looks: list[Any], state: ClusterStatus, code: int, said: str) -> None:
    """The code says whether it is ready, and a cluster that is down names the command that brings it up."""
    looks.append(state)
    done = CliRunner().invoke(main, ["status", "-f", "x.yaml"])
    assert (done.exit_code, said in done.output) == (code, True), done.output
