"""The slot of the GID table that NCCL uses. Expected values were worked out by hand from NCCL's sources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.facts.rdma import ETHERNET, INFINIBAND, ROCE_V1, ROCE_V2, Gid
from shoal.nccl.gid import Choice, choose

FE80 = "fe80:0000:0000:0000:5e25:73ff:fe3d:0001"
ZERO = "0000:0000:0000:0000:0000:0000:0000:0000"
GLOBAL6 = "fd00:0000:0000:0001:0000:0000:0000:0001"
OLD, FIRST, MIDDLE, NEW = (2, 20, 5), (2, 21, 5), (2, 25, 1), (2, 30, 7)


def v4(text: str) -> str:
    """An IPv4 address as the kernel writes its GID."""
    a, b, c, d = (int(part) for part in text.split("."))
    return f"0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"


def table(*rows: tuple[str, str | None]) -> tuple[Gid, ...]:
    """Slots 0, 1, ... with these GIDs and types; a type None could not be read."""
    return tuple(Gid(index, gid, kind, error="" if kind else "EINVAL") for index, (gid, kind) in enumerate(rows))


# What mlx5 writes for one interface with one IPv4 address.
USUAL = table((FE80, ROCE_V1), (FE80, ROCE_V2), (v4("192.168.100.1"), ROCE_V1), (v4("192.168.100.1"), ROCE_V2))
# A VLAN first, so the same address lies elsewhere.
SHIFTED = table(
    (FE80, ROCE_V1),
    (FE80, ROCE_V2),
    (FE80, ROCE_V1),
    (FE80, ROCE_V2),
    (v4("10.0.0.2"), ROCE_V1),
    (v4("10.0.0.2"), ROCE_V2),
)
TWO = table(
    (FE80, ROCE_V1),
    (FE80, ROCE_V2),
    (v4("10.1.0.7"), ROCE_V1),
    (v4("10.1.0.7"), ROCE_V2),
    (v4("192.168.100.7"), ROCE_V1),
    (v4("192.168.100.7"), ROCE_V2),
)
ONLY_V1 = table((FE80, ROCE_V1), (v4("10.0.0.3"), ROCE_V1), (v4("10.0.0.4"), ROCE_V1))
ONLY_FE80 = table((FE80, ROCE_V1), (FE80, ROCE_V2))
IPV6 = table((FE80, ROCE_V1), (FE80, ROCE_V2), (GLOBAL6, ROCE_V1), (GLOBAL6, ROCE_V2))
V4_FIRST = table((v4("10.0.0.1"), ROCE_V1), (v4("10.0.0.1"), ROCE_V2), (FE80, ROCE_V1), (GLOBAL6, ROCE_V2))
# Only v2, as rxe has it: slot 0 is link-local, slot 1 the address.
SOFT = table((FE80, ROCE_V2), (v4("192.168.100.1"), ROCE_V2))
EMPTY_BETWEEN = table((FE80, ROCE_V1), (ZERO, None), (ZERO, None), (v4("10.0.0.9"), ROCE_V1), (v4("10.0.0.9"), ROCE_V2))
# Slot 3 belongs to another network namespace: its type cannot be read.
FOREIGN = table(
    (FE80, ROCE_V1),
    (v4("10.0.0.5"), ROCE_V1),
    (v4("10.0.0.6"), None),
    (v4("10.0.0.5"), ROCE_V2),
)


@pytest.mark.parametrize(
    ("slots", "env", "old", "first", "middle", "new"),
    [
        (USUAL, {}, 0, 3, 3, 3),
        (SHIFTED, {}, 0, 5, 5, 5),
        (TWO, {}, 0, 3, 3, 3),
        (ONLY_V1, {}, 0, 1, 1, 1),
        (ONLY_FE80, {}, 0, 0, 0, 0),
        (IPV6, {}, 0, 0, 0, 0),
        (SOFT, {}, 0, 1, 1, 1),
        (EMPTY_BETWEEN, {}, 0, 4, 4, 4),
        (V4_FIRST, {}, 0, 1, 1, 1),
        ((), {}, 0, 0, 0, 0),
        (TWO, {"NCCL_IB_ADDR_RANGE": "192.168.100.0/24"}, 0, 5, 5, 5),
        (TWO, {"NCCL_IB_ADDR_RANGE": "172.16.0.0/12"}, 0, 0, 0, 0),
        (TWO, {"NCCL_IB_ADDR_RANGE": "192.168.100.0/33"}, 0, 3, 3, 3),
        (TWO, {"NCCL_IB_ADDR_RANGE": "here/24"}, 0, 3, 3, 3),
        (TWO, {"NCCL_IB_ADDR_RANGE": "192.168.100.0/-1"}, 0, 0, 0, 0),
        (IPV6, {"NCCL_IB_ADDR_FAMILY": "AF_INET6"}, 0, 3, 3, 3),
        (IPV6, {"NCCL_IB_ADDR_FAMILY": "af_inet6"}, 0, 0, 0, 0),
        (IPV6, {"NCCL_IB_ADDR_FAMILY": "AF_INET6", "NCCL_IB_ADDR_RANGE": "fd00:0:0:1::/64"}, 0, 3, 3, 3),
        # From IPv4 to IPv6 the family alone decides: the link-local slot 2 is taken, and slot 3 replaces it.
        (V4_FIRST, {"NCCL_IB_ADDR_FAMILY": "AF_INET6"}, 0, 3, 3, 3),
        (V4_FIRST[:3], {"NCCL_IB_ADDR_FAMILY": "AF_INET6"}, 0, 2, 2, 2),
        (USUAL, {"NCCL_IB_ROCE_VERSION_NUM": "1"}, 0, 2, 2, 2),
        (USUAL, {"NCCL_IB_GID_INDEX": "3"}, 3, 3, 3, 3),
        (USUAL, {"NCCL_IB_GID_INDEX": "7"}, 7, 7, 7, 7),
        (USUAL, {"NCCL_IB_GID_INDEX": "0x1"}, 1, 1, 1, 1),
        (USUAL, {"NCCL_IB_GID_INDEX": "three"}, 0, 0, 0, 0),
        (USUAL, {"NCCL_IB_GID_INDEX": "-1"}, -1, 3, 3, 3),
        (None, {"NCCL_IB_GID_INDEX": "3"}, 3, 3, 3, 3),
        (None, {}, 0, None, None, None),
        (FOREIGN, {}, 0, 1, 1, 3),
    ],
)
def test_the_slot_on_roce(
    slots: tuple[Gid, ...] | None,
    env: dict[str, str],
    old: int,
    first: int | None,
    middle: int | None,
    new: int | None,
) -> None:
    """Up to 2.20 the index is used as it is; from 2.21 on NCCL looks for the slot, with its quirks."""
    assert [choose(slots, ETHERNET, version, env).index for version in (OLD, FIRST, MIDDLE, NEW)] == [
        old,
        first,
        middle,
        new,
    ]


@pytest.mark.parametrize(
    ("version", "index", "fails"), [((2, 21, 5), 1, True), ((2, 25, 1), 1, True), ((2, 26, 2), 3, False)]
)
def test_a_type_that_cannot_be_read(version: tuple[int, ...], index: int, fails: bool) -> None:
    """NCCL 2.21 to 2.25 ends on a slot of another network namespace, 2.26 passes over it."""
    choice = choose(FOREIGN, ETHERNET, version, {})
    assert (choice.index, choice.fails) == (index, fails)


@pytest.mark.parametrize(
    ("slots", "version", "env", "expected"),
    [
        (ONLY_FE80, NEW, {}, 0),
        (ONLY_FE80, NEW, {"NCCL_IB_GID_INDEX": "3"}, 0),
        (ONLY_FE80, FIRST, {}, 0),
        (ONLY_FE80, FIRST, {"NCCL_IB_GID_INDEX": "3"}, 3),
        (ONLY_FE80, OLD, {}, 0),
        (table((FE80, ROCE_V1), ("fec0:0000:0012:0001:0000:0000:0000:0001", ROCE_V1)), NEW, {}, 1),
        (table((FE80, ROCE_V1), ("fec0:0000:0012:0001:0000:0000:0000:0001", ROCE_V1)), FIRST, {}, 0),
        (
            table((FE80, ROCE_V1), (FE80, ROCE_V1), ("fec0:0000:0012:0001:0000:0000:0000:0001", ROCE_V1)),
            NEW,
            {"NCCL_IB_ROUTABLE_FLID_GID_INDEX": "2"},
            2,
        ),
        (None, NEW, {}, 0),
    ],
)
def test_the_slot_on_infiniband(
    slots: tuple[Gid, ...] | None, version: tuple[int, ...], env: dict[str, str], expected: int
) -> None:
    """From 2.22 on it is 0, or the slot with a routable FLID, whatever the index says."""
    assert choose(slots, INFINIBAND, version, env).index == expected


@pytest.mark.parametrize(
    ("slots", "version", "env", "why"),
    [
        (USUAL, NEW, {}, "the first RoCE v2 slot with an IPv4 address: RoCE v2, 192.168.100.1"),
        (
            USUAL,
            OLD,
            {},
            (
                "NCCL 2.20.5 takes slot 0 unless told otherwise, used as it is: "
                "slot 0 is IB/RoCE v1, fe80::5e25:73ff:fe3d:1"
            ),
        ),
        (USUAL, NEW, {"NCCL_IB_GID_INDEX": "9"}, "NCCL_IB_GID_INDEX=9, used as it is: slot 9 is empty"),
        (
            ONLY_FE80,
            NEW,
            {},
            (
                "no slot holds an IPv4 address: NCCL takes slot 0 without a word, and that is "
                "IB/RoCE v1, fe80::5e25:73ff:fe3d:1"
            ),
        ),
        (ONLY_V1, NEW, {}, "no RoCE v2 slot holds an IPv4 address: slot 1 is IB/RoCE v1, 10.0.0.3"),
        (
            TWO,
            NEW,
            {"NCCL_IB_ADDR_RANGE": "192.168.100.0/24"},
            (
                "the first RoCE v2 slot with an IPv4 address in 192.168.100.0/24: RoCE v2, 192.168.100.7 "
                "(NCCL_IB_ADDR_RANGE=192.168.100.0/24)"
            ),
        ),
        (
            FOREIGN,
            MIDDLE,
            {},
            "NCCL 2.25.1 gives up: the type of slot 2 cannot be read. NCCL 2.26 and newer pass over such a slot",
        ),
        (None, NEW, {}, "the GID table was not read"),
    ],
)
def test_the_reason(slots: tuple[Gid, ...] | None, version: tuple[int, ...], env: dict[str, str], why: str) -> None:
    """The reason names the rule and what the slot holds."""
    assert choose(slots, ETHERNET, version, env).why == why


def test_a_range_without_a_length() -> None:
    """NCCL 2.21 and 2.22 crash on a range without a length, later ones pass over it."""
    env = {"NCCL_IB_ADDR_RANGE": "192.168.100.0"}
    old, new = (choose(TWO, ETHERNET, version, env) for version in ((2, 22, 3), (2, 26, 2)))
    assert (old.index, old.fails, new.index, new.fails) == (0, True, 3, False)


def test_types_that_nobody_read() -> None:
    """Where the choice depends on types that were not captured, the slot is not known."""
    untyped = tuple(Gid(gid.index, gid.gid) for gid in USUAL)
    assert choose(untyped, ETHERNET, NEW, {}) == Choice(None, "the types of the GIDs were not read")


def test_a_link_layer_that_nobody_read() -> None:
    """Without a link layer no slot is told."""
    assert choose(USUAL, None, NEW, {}) == Choice(None, "the link layer is not known")


GIDS = st.builds(
    Gid,
    st.integers(-1, 2**40),
    st.one_of(st.text(max_size=40), st.binary(min_size=16, max_size=16).map(bytes.hex), st.sampled_from([FE80, ZERO])),
    st.one_of(st.none(), st.text(max_size=12), st.sampled_from([ROCE_V1, ROCE_V2])),
)
ENVS = st.dictionaries(
    st.sampled_from(
        [
            "NCCL_IB_GID_INDEX",
            "NCCL_IB_ADDR_FAMILY",
            "NCCL_IB_ADDR_RANGE",
            "NCCL_IB_ROCE_VERSION_NUM",
            "NCCL_IB_ROUTABLE_FLID_GID_INDEX",
        ]
    ),
    st.one_of(st.text(max_size=20), st.sampled_from(["AF_INET6", "10.0.0.0/8", "::/0", "-1"])),
)


@given(
    st.one_of(st.none(), st.lists(GIDS, max_size=12)),
    st.sampled_from([None, ETHERNET, INFINIBAND, "Unknown"]),
    st.sampled_from([OLD, FIRST, MIDDLE, NEW, (2, 32)]),
    ENVS,
)
def test_no_table_makes_it_raise(
    slots: list[Gid] | None, layer: str | None, version: tuple[int, ...], env: dict[str, str]
) -> None:
    """Whatever the table and the environment hold, there is an answer with a reason."""
    assert choose(slots, layer, version, env).why
