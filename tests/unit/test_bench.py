"""The fabric bench's arithmetic, its judgement, its files and its picture."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shoal.bench import fabric, measure
from shoal.bench.measure import Drift, Measured, Pair, Rank, Row, Straggler, Verdict
from shoal.errors import ConfigError
from shoal.ui.cli import main
from shoal.ui.plot import draw
from shoal.ui.sizes import size_label

MIB = 1 << 20
RANKS = (
    Rank("10.0.0.1", "2.13.0", "eth0", ("mlx5_0",), 200.0, 1.0),
    Rank("10.0.0.2", "2.13.0", "eth0", (), 100.0, 1.0),
)
DOCUMENTS: list[dict[str, Any]] = [
    {
        "kind": "look",
        "backend": "nccl",
        "ranks": [
            {"address": "10.0.0.1", "torch": "2.13.0", "interface": "eth0", "hcas": ["mlx5_0"], "rdma_gbps": 200.0,
             "interface_gbps": 1.0},
            {"address": "10.0.0.2", "torch": "2.13.0", "interface": "eth0", "hcas": [], "rdma_gbps": 100.0,
             "interface_gbps": 1.0},
        ],
    },
    {"kind": "collective", "name": "all_reduce", "size": 100 * MIB, "seconds": 0.01},
    {"kind": "collective", "name": "reduce_scatter", "size": MIB, "unsupported": "gloo has none"},
    {"kind": "pair", "source": 0, "target": 1, "size": 10**9, "seconds": 0.1},
    {"kind": "done"},
]  # fmt: skip


def star(slow: int, count: int = 4) -> Measured:
    """Ranks of which one is slow: 2 GB/s with it, 10 GB/s without."""
    ranks = tuple(replace(RANKS[0], address=f"10.0.0.{at + 1}") for at in range(count))
    pairs = tuple(Pair(a, b, 2.0 if slow in {a, b} else 10.0) for a in range(count) for b in range(count) if a != b)
    return Measured("nccl", ranks, (Row("all_gather", MIB, 1e-4, 10.0, 10.0),), pairs)


def test_sizes_go_up_by_four_and_end_with_the_largest() -> None:
    """From 1 KiB, each four times the one before, the largest itself last."""
    assert measure.sizes(64 << 10) == [1 << 10, 4 << 10, 16 << 10, 64 << 10]
    assert measure.sizes(100_002) == [1 << 10, 4 << 10, 16 << 10, 64 << 10, 100_000]


@pytest.mark.parametrize(
    ("name", "ranks", "busbw"),
    [
        ("all_reduce", 2, 1.0),
        ("all_reduce", 4, 1.5),
        ("all_gather", 4, 0.75),
        ("reduce_scatter", 2, 0.5),
        ("send_recv", 9, 1.0),
    ],
)
def test_bus_bandwidth_is_what_nccl_tests_define(name: str, ranks: int, busbw: float) -> None:
    """One gigabyte in a second, by the factor of the collective and the number of ranks."""
    assert measure.bus_bandwidth(name, 10**9, 1.0, ranks) == busbw


def test_the_drivers_lines_become_values() -> None:
    """Ranks, rows with both bandwidths, pairs, and what the backend does not have."""
    size = 100 * MIB
    assert measure.measured(DOCUMENTS) == Measured(
        "nccl",
        RANKS,
        (Row("all_reduce", size, 0.01, size / 0.01 / 1e9, size / 0.01 / 1e9),),
        (Pair(0, 1, 10.0),),
        (("reduce_scatter", "gloo has none"),),
    )


def test_the_slowest_nodes_links_are_the_rate_to_reach() -> None:
    """NCCL is compared with the HCAs, Gloo with the interface, ranks of one node with nothing."""
    found = Measured("nccl", RANKS, (), ())
    rates = [found, replace(found, backend="gloo"), replace(found, ranks=(RANKS[0], RANKS[0]))]
    assert [measure.link_rate(item) for item in rates] == [100.0, 1.0, None]


def test_a_slow_rank_is_found_among_the_others() -> None:
    """A rank whose pairs are 30 % below the median is named with both numbers, and fails the run."""
    found = star(slow=2)
    assert measure.stragglers(found) == (Straggler(2, "10.0.0.3", 2.0, 6.0),)
    words = "slower than the others: rank 2 (10.0.0.3) 2.00 GB/s, median 6.00 GB/s"
    assert measure.verdict(found, 100.0) == Verdict(words, good=False)


def test_two_ranks_have_no_straggler() -> None:
    """With two ranks nobody can be slower than the others."""
    assert measure.stragglers(star(slow=0, count=2)) == ()


@pytest.mark.parametrize(
    ("link", "good", "tail"),
    [
        (100.0, True, "80% of the link's 100 Gb/s"),
        (200.0, False, "40% of the link's 200 Gb/s: far below the 75% that are usual"),
        (130.0, False, "62% of the link's 130 Gb/s: below the 75% that are usual"),
        (None, None, "no link rate is known to compare with"),
    ],
)
def test_the_best_bandwidth_is_judged_by_the_links_rate(link: float | None, good: bool | None, tail: str) -> None:
    """Three quarters of the rate are usual; without a rate nothing is judged."""
    found = Measured(
        "nccl", RANKS, (Row("all_gather", MIB, 1e-4, 10.0, 10.0), Row("all_reduce", MIB, 1e-4, 5.0, 5.0)), ()
    )
    judged = measure.verdict(found, link)
    assert (judged.good, judged.words.endswith(tail)) == (good, True), judged


def test_nothing_measured_is_no_success() -> None:
    """A run without rows fails."""
    assert measure.verdict(Measured("gloo", RANKS, (), ()), None).good is False


def test_drift_is_told_beyond_a_tenth() -> None:
    """What moved by more than 10 % is listed; sizes of one run only are passed over."""
    before = [Row("all_reduce", size, 1.0, 1.0, 10.0) for size in (1, 2, 3)]
    now = [Row("all_reduce", size, 1.0, 1.0, busbw) for size, busbw in ((1, 10.5), (2, 7.0), (9, 1.0))]
    moved = measure.drifts(before, now)
    assert moved == (Drift("all_reduce", 2, 10.0, 7.0),)
    assert round(moved[0].change, 3) == -0.3


def test_a_kept_result_reads_back() -> None:
    """What is written as JSON is the same when read."""
    found = measure.measured(DOCUMENTS)
    assert fabric.read_document(json.dumps(fabric.document(found, 100.0)), "x.json") == found


@given(st.text())
def test_rubbish_is_no_kept_result(text: str) -> None:
    """Any other text is refused with the file's name."""
    with pytest.raises(ConfigError, match=r"x\.json is no result"):
        fabric.read_document(text, "x.json")


@pytest.mark.parametrize(("text", "size"), [("64M", 64 * MIB), ("1GiB", 1 << 30), ("4096", 4096), ("8kb", 8192)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    """Units with or without B and iB, in any case."""
    assert fabric.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "12Q", "1K", "17G", "-4M", "1.5G"])
def test_other_sizes_are_refused(text: str) -> None:
    """No number, no unit, or out of range."""
    with pytest.raises(ValueError, match=r"."):
        fabric.parse_size(text)


@pytest.mark.parametrize(("size", "text"), [(1024, "1 KiB"), (MIB, "1 MiB"), (512, "512 B"), (1 << 40, "1024 GiB")])
def test_sizes_are_shown_in_the_largest_unit(size: int, text: str) -> None:
    """Whole numbers, up to GiB."""
    assert size_label(size) == text


def test_a_picture_is_drawn_with_every_name_in_it(tmp_path: Path) -> None:
    """The SVG has axes, the link's line and the ranks of the heat map."""
    file = tmp_path / "fabric.svg"
    draw(star(slow=1), 100.0, file)
    text = file.read_text()
    # Text is drawn as shapes, each with its words in a comment.
    assert [
        word for word in ("all-gather", "link, 100 Gb/s", "bus bandwidth, GB/s", "10.0.0.2") if word not in text
    ] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plot", "fabric.txt"], "expected a name that ends with .svg, .png or .pdf"),
        (["--max-size", "1"], "expected 4K to 16G"),
        (["--compare", "missing.json"], "cannot read missing.json"),
        (["--address", "nowhere"], "expected HOST:PORT"),
        ([], "no cluster is up on this machine"),
    ],
)
def test_wrong_calls_are_told_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong, and what was expected."""
    monkeypatch.setenv("SHOAL_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["bench", "fabric", *words], prog_name="shoal")
    assert result.exit_code in {2, 4}, result.output
    assert said in result.output
