"""NCCL's variables by version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.nccl.variables import NOT_NCCL, VARIABLES, nearest, of_plugin, parse_version


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NCCL_IB_DISABLE", "integer"),
        ("NCCL_P2P_DISABLE", "integer"),
        ("NCCL_IB_HCA", "string"),
        ("NCCL_NET_GDR_LEVEL", "enum"),
        ("NCCL_RUN_DIAGNOSTICS", "unknown"),
    ],
)
def test_the_kind_of_a_variable(name: str, kind: str) -> None:
    """Each variable is an integer, a string, one of some words, or of a kind that nobody has read yet."""
    assert VARIABLES[name].kind == kind


@pytest.mark.parametrize(
    ("name", "known", "unknown"),
    [
        ("NCCL_IB_HCA", ["2.18.3", "2.21", "2.32.3", "2.40"], []),
        ("NCCL_IB_ADDR_RANGE", ["2.21.5", "2.21", "2.30"], ["2.20.5", "2.18"]),
        ("NCCL_IB_SUBNET_AWARE_ROUTING", ["2.30.7", "2.30", "2.31.2"], ["2.30.3", "2.29"]),
        ("NCCL_MNNVL", ["2.20.3", "2.20"], ["2.19.4", "2.21.5"]),
        ("NCCL_SHM_USE_CUDA_MEMCPY", ["2.18", "2.30.4"], ["2.30.7", "2.31"]),
        ("NCCL_DIAGNOSTICS_IB_BW_TIMEOUT", ["2.32.3"], ["2.31.2"]),
    ],
)
def test_from_which_version_to_which(name: str, known: list[str], unknown: list[str]) -> None:
    """A variable is known from the version that brought it to the last that had it; X.Y is its newest patch."""
    versions = [(text, parse_version(text)) for text in (*known, *unknown)]
    assert [text for text, version in versions if version and VARIABLES[name].known_in(version)] == known


def test_the_size_of_the_table() -> None:
    """No name is lost or doubled between the three blocks and the words."""
    assert len(VARIABLES) == 326
    assert [name for name in VARIABLES if not name.startswith("NCCL_") or not name.isupper()] == []


def test_what_looks_like_nccl_and_is_not() -> None:
    """Neither torch's old names nor invented ones are in the table, nor do plugins' names count as NCCL's."""
    assert [name for name in NOT_NCCL if name in VARIABLES] == []
    assert of_plugin("NCCL_IBEXT_DISABLE")
    assert [name for name in VARIABLES if of_plugin(name)] == []


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("NCCL_IB_GDR_DMABUF_ENABLE", "NCCL_DMABUF_ENABLE"),
        ("NCCL_IB_GIDINDEX", "NCCL_IB_GID_INDEX"),
        ("NCCL_SOCKET_IFNAMES", "NCCL_SOCKET_IFNAME"),
    ],
)
def test_the_nearest_right_name(name: str, right: str) -> None:
    """A wrong name leads to the right one."""
    assert nearest(name, None) == [right]


def test_the_nearest_name_is_one_of_that_version() -> None:
    """A name that this NCCL does not have is never advised."""
    assert nearest("NCCL_IB_SUBNET_AWARE_ROUTIN", (2, 18, 3)) != ["NCCL_IB_SUBNET_AWARE_ROUTING"]


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.27.3", (2, 27, 3)), ("v2.30.7-1", (2, 30, 7)), ("2.21", (2, 21)), ("2.27.3+cuda12.9", (2, 27, 3)),
     ("2", None), ("", None), ("new", None), ("2.x", None), ("²2.3", None)],
)  # fmt: skip
def test_a_version(text: str, version: tuple[int, ...] | None) -> None:
    """A version is read as people and packages write it; all else is none."""
    assert parse_version(text) == version


@given(st.text())
def test_any_text_is_a_version_or_none(text: str) -> None:
    """No text makes the reader of versions fail."""
    parse_version(text)
