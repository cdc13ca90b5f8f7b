"""Variables that are left to the agent are chosen before Ray starts."""

import pytest
from tests.unit.fabric_nodes import node, roce

from shoal.agent import auto
from shoal.errors import CommandFailed
from shoal.host.fake import FakeHost

NODE = node("n1", [roce("mlx5_0", "0000:01:00.0", "eth1", "192.168.100.1/24")])
FOLLOWERS = {"GLOO_SOCKET_IFNAME": "eth1", "TP_SOCKET_IFNAME": "eth1", "UCX_NET_DEVICES": "eth1"}
BOTH = {"NCCL_IB_HCA": "=mlx5_0", "NCCL_SOCKET_IFNAME": "=eth1"}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the agent says, with a machine that is NODE."""
    monkeypatch.setattr(auto, "gather", lambda host, wanted: None)
    monkeypatch.setattr(auto, "node_facts", lambda snapshot: NODE)
    return []


def told(said: list[str], env: dict[str, str]) -> dict[str, str]:
    """What is chosen in this environment; ``said`` gets what is told of it."""

    def log(name: str, words: str, *, level: str = "info") -> None:
        said.append(f"{name} {level}: {words}")

    return auto.choose(log, FakeHost(), env)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, BOTH),
        ({"NCCL_IB_HCA": "auto", "NCCL_SOCKET_IFNAME": ""}, BOTH),
        ({"NCCL_IB_HCA": "mlx5_0"}, {"NCCL_SOCKET_IFNAME": "=eth1"}),
        ({"NCCL_IB_GID_INDEX": "0"}, BOTH),
        ({"NCCL_IB_DISABLE": "1"}, {"NCCL_SOCKET_IFNAME": "=eth1"}),
    ],
)
def test_what_is_left_to_the_agent(said: list[str], env: dict[str, str], expected: dict[str, str]) -> None:
    """Empty and auto are chosen; what the user set stays as it is."""
    assert told(said, env) == expected | FOLLOWERS


def test_each_choice_is_told_with_its_reason(said: list[str]) -> None:
    """The log has every choice."""
    told(said, {"GLOO_SOCKET_IFNAME": "eth1", "TP_SOCKET_IFNAME": "eth1", "UCX_NET_DEVICES": "eth1"})
    assert said == [
        "fabric info: NCCL_IB_HCA==mlx5_0 (chosen: 1 RoCE port(s) on 1 rail(s), by their exact names)",
        "fabric info: NCCL_SOCKET_IFNAME==eth1 (chosen: the bootstrap: this node's first network, 192.168.100.0/24)",
    ]


def test_what_is_set_and_wrong_is_told(said: list[str]) -> None:
    """A pinned slot that is wrong stays, and is warned of."""
    told(said, {"NCCL_IB_GID_INDEX": "0"} | BOTH | FOLLOWERS)
    why = "NCCL_IB_GID_INDEX=0 is wrong here: NCCL 2.32 finds the slot itself (-1)"
    assert said == [f"fabric warn: NCCL_IB_GID_INDEX=0 is left as set, -1 would be right: {why}"]


def test_a_machine_that_cannot_be_read(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine cannot be read nothing is chosen, and that is told."""

    def fails(host: object, wanted: object) -> None:
        raise CommandFailed("n1 could not be read")

    monkeypatch.setattr(auto, "gather", fails)
    assert (told(said, {}), said) == ({}, ["fabric warn: nothing is chosen: n1 could not be read"])
