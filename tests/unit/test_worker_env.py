"""VLLM_RAY_WORKER_ENV_VARS: what it means to the agent, to vLLM of each generation, and what never travels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.log import is_secret
from shoal.spec.env_table import PER_NODE, WORKER_DEFAULT
from shoal.spec.worker_env import Carrier, carrier, copied, for_raylet, listed, not_carried, passed_on

OLD = Carrier(reads_list=False, overwrites=True)
LIST = Carrier(reads_list=True, overwrites=True)
NEW = Carrier(reads_list=False, all_variables=True)
V2 = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"


@pytest.mark.parametrize(
    ("vllm", "env", "does"),
    [
        ("0.8.0", {}, OLD),
        ("0.10.1.1+381074ae.nv25.09", {}, OLD),
        ("0.16.0", {V2: "1"}, OLD),
        ("0.17.1", {}, LIST),
        ("0.19.1", {V2: "1"}, LIST),
        ("0.20.2", {}, LIST),
        ("0.20.2", {V2: "1"}, NEW),
        ("0.21.0rc1", {}, NEW),
        ("0.32.0", {}, NEW),
        ("0.32.0", {V2: "0"}, LIST),
        ("0.33.0", {V2: "0"}, NEW),
        ("1.0.0", {}, NEW),
        (None, {}, LIST),
        ("dev", {}, LIST),
    ],
)
def test_what_each_vllm_does(vllm: str | None, env: dict[str, str], does: Carrier) -> None:
    """Each generation of vLLM carries variables in its own way, and a switch chooses where a version has two."""
    assert carrier(vllm, env) == does


def test_the_list_of_a_user_replaces_the_default() -> None:
    """Without a list it is every NCCL_* of the table; with one it is that."""
    assert listed({}) == WORKER_DEFAULT
    assert listed({"VLLM_RAY_WORKER_ENV_VARS": " "}) == WORKER_DEFAULT
    assert listed({"VLLM_RAY_WORKER_ENV_VARS": "A, B ,,"}) == ("A", "B")


def test_a_raylet_gets_its_own_nodes_values() -> None:
    """Workers inherit the node's own values, `auto` and nothing empty, and the interface that NCCL is told."""
    env = {"NCCL_SOCKET_IFNAME": "=enp1s0", "NCCL_IB_HCA": "auto", "NCCL_DEBUG": "", "PATH": "/bin", "HF_TOKEN": "x"}
    follow = dict.fromkeys(("GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES", "TP_SOCKET_IFNAME"), "enp1s0")
    assert for_raylet(env) == {"NCCL_SOCKET_IFNAME": "=enp1s0", "PATH": "/bin"} | follow
    assert for_raylet(env | {"GLOO_SOCKET_IFNAME": "eth0"})["GLOO_SOCKET_IFNAME"] == "eth0"


@pytest.mark.parametrize("value", ["^docker0", "eth0,eth1", "auto", "", "^=lo"])
def test_several_interfaces_are_followed_by_none(value: str) -> None:
    """Where NCCL's value does not name one interface, nothing follows it."""
    assert "GLOO_SOCKET_IFNAME" not in for_raylet({"NCCL_SOCKET_IFNAME": value})


def test_a_secret_reaches_workers_only_where_it_is_named() -> None:
    """A secret that the list names comes from the node's own environment; all others stay out, Ray's token always."""
    env = {"HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "y", "RAY_AUTH_TOKEN": "z"}
    names = {"VLLM_RAY_WORKER_ENV_VARS": "HF_TOKEN,RAY_AUTH_TOKEN"}
    assert for_raylet(env) == {}
    assert for_raylet(env | names) == {"HF_TOKEN": "x"} | names
    assert "HF_TOKEN" in not_carried(names)


def test_the_list_that_vllm_is_given_joins_the_users_own() -> None:
    """What the user asks vLLM to copy is kept, what is not set or differs between nodes is left out."""
    env = {
        "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "MINE,NCCL_IB_HCA",
        "VLLM_RAY_WORKER_ENV_VARS": "A,B,HF_TOKEN",
        "A": "1",
        "HF_TOKEN": "x",
        "NCCL_IB_HCA": "mlx5_0",
    }
    assert copied(env, "0.18.1") == {"VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "A,MINE"}
    assert copied(env, "0.32.0") == {}
    assert copied({}, "0.18.1") == {}


NAMES = st.sampled_from(["NCCL_IB_HCA", "NCCL_IB_TC", "HF_TOKEN", "MY_SECRET", "VLLM_HOST_IP", "A"])
ENV = st.dictionaries(NAMES, st.sampled_from(["", "auto", "x"]))


@given(ENV, st.lists(NAMES), st.sampled_from(["0.10.1", "0.18.0", "0.20.1", "0.32.0", "0.33.0"]))
def test_no_secret_and_nothing_of_one_node_is_ever_copied(env: dict[str, str], names: list[str], vllm: str) -> None:
    """Whatever the list names, the head's addresses, devices and secrets are in no list to copy, and in the other."""
    env = env | {"VLLM_RAY_WORKER_ENV_VARS": ",".join(names)}
    told = copied(env, vllm).get("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY", "").split(",")
    kept = set(not_carried(env))
    assert [name for name in told if is_secret(name) or name in PER_NODE] == []
    assert set(PER_NODE) <= kept
    assert {name for name in env if is_secret(name)} <= kept
    assert [name for name in passed_on(env) if is_secret(name) or not env[name]] == []
