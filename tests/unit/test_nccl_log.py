"""NCCL's log is read as a report of each rank, in every version and behind every prefix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nccl_logs import PREFIXES, VERSIONS, after, rank, spoken, text

from shoal.explain.story import Story
from shoal.nccl.log import NcclReader
from shoal.nccl.rank import Hca, Rank, is_rdma


def read(data: bytes) -> list[Rank]:
    story = Story("log")
    story.read([data])
    return list(story.reader.ranks.values())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_rank(version: str, prefix: str) -> None:
    """Version, network, device, GID, GPUDirect and channels are read whatever stands around the lines."""
    [told] = read(text(spoken(rank(version), version), prefix))
    hca = Hca("mlx5_0", 1, "RoCE", 200000 if after(version, "2.27") else 0, 3, "192.168.100.1", gdr=True)
    assert (
        told.version.partition("+")[0],
        told.network,
        told.oob,
        told.rank,
        told.nranks,
        told.complete,
        told.rdma,
        told.gdr,
        told.channels,
        told.gdr_channels,
        told.hcas,
    ) == (version, "IB", "eth0", 0, 2, True, True, True, {"NET/IB": 4}, 4, {"mlx5_0": hca})


@pytest.mark.parametrize("version", VERSIONS)
def test_two_devices_merged(version: str) -> None:
    """Two ports that NCCL uses as one are told as two devices and their union."""
    lines = rank(version, names=("rocep1s0f0", "rocep1s0f1"), merged="rocep1s0f0+rocep1s0f1")
    [told] = read(text(spoken(lines, version)))
    assert (list(told.hcas), told.merged) == (["rocep1s0f0", "rocep1s0f1"], ["rocep1s0f0+rocep1s0f1"])


@pytest.mark.parametrize(("network", "rdma"), [("IBext_v8", True), ("AWS Libfabric", True), ("Socket", False)])
def test_networks(network: str, rdma: bool) -> None:
    """A plugin's network is RDMA, sockets are not; the name is whole."""
    [told] = read(text(spoken(rank("2.23.4", network=network), "2.23.4")))
    assert (told.network, told.rdma, told.channels) == (network, rdma, {f"NET/{network}": 4})


def test_a_plugin_is_named() -> None:
    """The plugin of HPC-X is told by its name."""
    [told] = read(text(spoken(rank("2.21.5", network="IBext_v8"), "2.21.5")))
    assert told.plugin == "IBext_v8"


def test_gpudirect_off() -> None:
    """Where every device says that GPUDirect is off, the rank has none."""
    [told] = read(text(spoken(rank("2.28.9", gdr=False), "2.28.9")))
    assert (told.gdr, told.gdr_channels, told.hcas["mlx5_0"].gdr) == (False, 0, False)


def test_the_last_word_wins() -> None:
    """What a process says later replaces what it said before."""
    lines = [*rank("2.28.9", network="Socket", channels=False), *rank("2.28.9")]
    [told] = read(text(spoken(lines, "2.28.9")))
    assert (told.network, told.no_device) == ("IB", False)


def test_two_processes_in_one_log() -> None:
    """Interleaved lines of two processes give two ranks."""
    one = spoken(rank("2.28.9"), "2.28.9", pid=11)
    two = spoken(rank("2.28.9", number=1), "2.28.9", pid=12)
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    assert [(told.pid, told.rank, told.channels) for told in read(text(mixed))] == [
        (11, 0, {"NET/IB": 4}),
        (12, 1, {"NET/IB": 4}),
    ]


def test_torn_lines() -> None:
    """Two messages that were written into one line are both read."""
    one = "node1:11:11 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [receive] via NET/IB/0/GDRDMA"
    two = "node1:12:12 [1] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [receive] via NET/IB/0"
    told = read(f"(RayWorkerProc pid=3) {one} {two}\n".encode())
    assert [(rank.pid, rank.channels, rank.gdr_channels) for rank in told] == [
        (11, {"NET/IB": 1}, 1),
        (12, {"NET/IB": 1}, 0),
    ]


def test_same_pid_on_two_nodes() -> None:
    """Containers of one name and one process id, on two nodes of a Ray cluster, are two processes."""
    line = "vllm:7:7 [0] NCCL INFO Using network IB"
    told = read(f"(RayWorkerProc pid=7) {line}\n(RayWorkerProc pid=7, ip=10.0.0.2) {line}\n".encode())
    assert len(told) == 2


def test_environment() -> None:
    """What NCCL took from the environment is kept, without the full stop of some versions."""
    env = [
        "NCCL_IB_HCA set to ^mlx5_1",
        "NCCL_SHM_DISABLE set by environment to 1.",
        "NCCL_IB_TC set by environment to 106",
    ]
    [told] = read(text(spoken(rank("2.23.4", env=env), "2.23.4")))
    assert told.env == {"NCCL_IB_HCA": "^mlx5_1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_TC": "106"}


@pytest.mark.parametrize("name", ["IB", "IBext_v8", "IBext", "AWS Libfabric", "Libfabric", "GIB", "FasTrak"])
def test_rdma_names(name: str) -> None:
    """Every network but sockets is RDMA."""
    assert (is_rdma(name), is_rdma("Socket"), is_rdma("")) == (True, False, False)


REAL = [line.encode() for line in spoken(rank("2.28.9"), "2.28.9")]
TORN = st.sampled_from(REAL).map(lambda line: line[:60] + b" NCCL INFO " + line)


@given(st.lists(st.one_of(st.binary(max_size=200), TORN)))
def test_any_bytes(lines: list[bytes]) -> None:
    """No bytes make the reader fail."""
    reader = NcclReader()
    for number, line in enumerate(lines, 1):
        reader.feed(line, number)
