"""Nothing that a machine could be makes a check raise."""

import dataclasses
import functools
from typing import Any, get_type_hints

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.test_facts_random import snapshots

from shoal.checks.base import Status
from shoal.checks.catalogue import CHECKS, FLEET_CHECKS
from shoal.checks.run import judged
from shoal.facts import container, gpu, machine, net, rdma, stack
from shoal.facts.net import Address
from shoal.facts.node import Fleet, NodeFacts
from shoal.facts.parse.addresses import made_address
from shoal.facts.read import node_facts
from shoal.host.snapshot import Snapshot

NAMES = ("eth0", "eth0.100", "mlx5_0", "mlx5_1", "ib0", "", "a=b", "^x", "0", "ACTIVE", "IPv4", "RoCE v2", "Ethernet")
VARIABLES = ("NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "NCCL_IB_GID_INDEX", "NCCL_IB_TC", "VLLM_HOST_IP", "NCCL_NET_PLUGIN")
words = st.one_of(st.sampled_from(NAMES), st.sampled_from(VARIABLES), st.text(max_size=8))
# What the parsers promise: an address is one. Everything else may be anything of its type.
addresses = st.builds(
    made_address, st.sampled_from(("10.0.0.1", "192.168.100.2", "fe80::1", "127.0.0.1")), st.integers(0, 32)
)


def broken(facts: NodeFacts, fleet: Fleet) -> list[str]:
    findings = (*judged(CHECKS, facts, facts.name), *judged(FLEET_CHECKS, fleet))
    return [f"{item.id}: {item.evidence}" for item in findings if "the check itself broke" in item.evidence]


@given(snapshots, snapshots)
def test_no_snapshot_makes_a_check_raise(one: Snapshot, other: Snapshot) -> None:
    """Random bytes, read and judged, alone and as two nodes."""
    nodes = (node_facts(one), node_facts(other))
    assert broken(nodes[0], Fleet(nodes)) == []


def rich(kind: type) -> st.SearchStrategy[Any]:
    """A value of a dataclass with every field drawn: hypothesis by itself leaves defaults as they are."""
    drawn = {name: st.from_type(hint) for name, hint in get_type_hints(kind).items() if (kind, name) not in OWN}
    own = {name: strategy for (owner, name), strategy in OWN.items() if owner is kind}
    return st.builds(kind, **drawn, **own)


OWN = {
    (NodeFacts, "env"): st.none() | st.dictionaries(st.sampled_from(VARIABLES), words),
    (NodeFacts, "before"): st.none(),
}
MODULES = (container, gpu, machine, net, rdma, stack)


@functools.cache
def facts() -> st.SearchStrategy[NodeFacts]:
    st.register_type_strategy(str, words)
    st.register_type_strategy(int, st.one_of(st.integers(-2, 70000), st.integers(0, 2**64)))
    st.register_type_strategy(float, st.floats(allow_nan=True))
    st.register_type_strategy(Address, addresses.filter(bool))
    kinds = {kind for module in MODULES for kind in vars(module).values() if isinstance(kind, type)}
    for kind in (kind for kind in kinds if dataclasses.is_dataclass(kind) and kind is not Address):
        st.register_type_strategy(kind, rich)
    return rich(NodeFacts)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_facts_make_a_check_raise(data: st.DataObject) -> None:
    """Facts of every type that the dataclasses allow, far beyond what parsers make."""
    nodes = (data.draw(facts()), data.draw(facts()))
    assert broken(nodes[0], Fleet(nodes)) == []


def test_a_broken_check_would_be_noticed() -> None:
    """The test looks at words that a broken check really says."""
    from shoal.checks.base import Check, Verdict

    def fails(_: NodeFacts) -> Verdict:
        raise ValueError

    (finding,) = judged((Check[NodeFacts]("x.y", "t", fails),), NodeFacts("n"))
    assert (finding.status, "the check itself broke" in finding.evidence) == (Status.UNKNOWN, True)
