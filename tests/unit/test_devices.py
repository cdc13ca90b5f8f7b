"""GPUs and RDMA devices, as the agent tells them."""

import io

import pytest

from shoal.agent.devices import HOLDERS, USED, Held, holder_words, look, parse_held, rdma_words
from shoal.errors import PreconditionFailed
from shoal.facts.gpu import QUERY, chosen
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.log import Event, EventLog

SMI, MEMORY, APPS = (" ".join(argv) for argv in (QUERY, USED, HOLDERS))
PORT = "/sys/class/infiniband/mlx5_0/ports/1"
HCA = {f"{PORT}/state": "4: ACTIVE\n", f"{PORT}/link_layer": "Ethernet\n"}
H100 = {SMI: "0, NVIDIA H100, 81559\n"}


class Heard(list[Event]):
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(io.StringIO(), clock=lambda: 0.0)
        self.log.listeners.append(self.append)

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_gpus_and_rdma_devices_are_counted_and_told(heard: Heard) -> None:
    """The number of GPUs is the answer; their names, the HCAs, their device files and interfaces are told."""
    host = FakeHost(
        HCA | {"/dev/infiniband/rdma_cm": "", "/dev/infiniband/uverbs0": ""},
        {
            SMI: "0, NVIDIA GB10, [N/A]\n1, NVIDIA GB10, 1024\n",
            MEMORY: "0, [N/A], [N/A]\n1, 3, 1024\n",
            "rdma link": "link mlx5_0/1 state ACTIVE physical_state LINK_UP netdev enp1s0f0np0\n",
        },
    )
    assert look(heard.log, host) == 2
    assert heard.lines == [
        "2 GPU(s), says nvidia-smi: NVIDIA GB10, NVIDIA GB10",
        "RDMA: mlx5_0 ACTIVE (Ethernet)",
        "/dev/infiniband: rdma_cm, uverbs0",
        "rdma link: mlx5_0/1 state ACTIVE physical_state LINK_UP netdev enp1s0f0np0",
    ]


@pytest.mark.parametrize(
    ("replies", "told"),
    [({}, "no GPU: nvidia-smi is not installed"), ({SMI: ""}, "0 GPU(s), says nvidia-smi: none seen by the driver")],
)
def test_a_machine_without_gpus_is_no_failure(heard: Heard, replies: dict[str, str], told: str) -> None:
    """A machine without a driver, or without GPUs, has none, and that is told."""
    assert look(heard.log, FakeHost({}, replies)) == 0
    assert heard.lines == [told, "no RDMA device in /sys/class/infiniband"]


def test_a_driver_that_does_not_answer_stops_the_start(heard: Heard) -> None:
    """A driver that is there and fails is a machine that is not fit, with the driver's words."""
    host = FakeHost({}, {SMI: Result(QUERY, 9, "", "NVIDIA-SMI has failed\n")})
    with pytest.raises(PreconditionFailed) as raised:
        look(heard.log, host)
    assert raised.value.why == "NVIDIA-SMI has failed"


@pytest.mark.parametrize(
    ("files", "reply", "words"),
    [
        ({}, None, ("no RDMA device in /sys/class/infiniband",)),
        (
            {"/dev/infiniband/uverbs0": ""},
            None,
            ("no RDMA device in /sys/class/infiniband", "/dev/infiniband: uverbs0"),
        ),
        (
            HCA,
            None,
            (
                "RDMA: mlx5_0 ACTIVE (Ethernet)",
                "no /dev/infiniband: programs here can use no RDMA device",
                "`rdma link` is not in this image: which interface belongs to which HCA is not known",
            ),
        ),
        (
            HCA,
            Result(("rdma", "link"), 1, "", "no permission\n"),
            (
                "RDMA: mlx5_0 ACTIVE (Ethernet)",
                "no /dev/infiniband: programs here can use no RDMA device",
                "`rdma link` ended with code 1: no permission: which interface belongs to which HCA is not known",
            ),
        ),
        (
            HCA,
            "",
            (
                "RDMA: mlx5_0 ACTIVE (Ethernet)",
                "no /dev/infiniband: programs here can use no RDMA device",
                "`rdma link` names no link",
            ),
        ),
    ],
)
def test_rdma_in_words(files: dict[str, str], reply: str | Result | None, words: tuple[str, ...]) -> None:
    """What is there, what this container was given of it, and what could not be told: each in words."""
    assert rdma_words(FakeHost(files, {} if reply is None else {"rdma link": reply})) == words


def test_a_gpu_that_somebody_holds_stops_the_start(heard: Heard) -> None:
    """A GPU with most of its memory in use is refused, by number, holder and fix; shared GPUs are taken."""
    replies = H100 | {MEMORY: "0, 70000, 81559\n", APPS: "4242, python3, 69000\n"}
    with pytest.raises(PreconditionFailed) as raised:
        look(heard.log, FakeHost({}, replies))
    assert str(raised.value) == (
        "GPUs are held by another process: GPU 0: 70000 of 81559 MiB are in use\n"
        "why: python3 (pid 4242, 69000 MiB)\n"
        "fix: end it (`docker ps`, `nvidia-smi` on the machine), or set SHOAL_SHARE_GPUS=1"
    )
    assert look(heard.log, FakeHost({}, replies), shared=True) == 1


@pytest.mark.parametrize(
    ("replies", "wanted", "offered"),
    [({}, 1, 1), ({}, None, 0), (H100, None, 1), (H100, 1, 1), (H100, 0, 0)],
)
def test_what_is_wanted_is_offered(heard: Heard, replies: dict[str, str], wanted: int | None, offered: int) -> None:
    """All GPUs, or as many as are wanted; without a driver they are logical ones."""
    assert look(heard.log, FakeHost({}, replies), wanted) == offered


def test_more_gpus_than_there_are_is_told(heard: Heard) -> None:
    """A GPU that the driver does not see, or not yet, keeps the node from joining, by number."""
    with pytest.raises(PreconditionFailed, match=r"SHOAL_NUM_GPUS=2, and nvidia-smi sees 1 GPU\(s\)"):
        look(heard.log, FakeHost({}, H100), 2)


def test_what_a_desktop_uses_is_no_holder() -> None:
    """Up to 1 GiB, or a tenth of a large GPU, is taken for idle; unified memory is not judged."""
    assert parse_held("0, 900, 8192\n1, 8000, 81559\n2, [N/A], [N/A]\n3, 1100, 8192\nx\n") == (Held("3", 1100, 8192),)


def test_a_holder_that_is_not_seen_is_told_as_such() -> None:
    """nvidia-smi shows no process of another container: the words say so."""
    assert holder_words(["[N/A], [Not Found], 12"]) == "by a process that cannot be seen from inside this container"
    assert holder_words(["1, a, 2", "3, b, 4"]) == "a (pid 1, 2 MiB), b (pid 3, 4 MiB)"


def test_only_visible_gpus_are_offered_and_judged(heard: Heard) -> None:
    """nvidia-smi does not read CUDA_VISIBLE_DEVICES, so it is asked for these GPUs: another's holder stops nobody."""
    replies = {f"{SMI} -i 1": "1, NVIDIA H100, 81559\n", f"{MEMORY} -i 1": "1, 3, 81559\n"}
    others = H100 | {MEMORY: "0, 70000, 81559\n1, 3, 81559\n"}
    assert look(heard.log, FakeHost({}, others | replies), visible="1") == 1


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        ("", ()),
        ("0", ("-i", "0")),
        ("2, 3", ("-i", "2,3")),
        ("GPU-8f6d3a1c-00ab", ("-i", "GPU-8f6d3a1c-00ab")),
        ("-1", ()),
        ("MIG-5c89852c", ()),
        ("NoDevFiles", ()),
    ],
)
def test_visible_gpus_in_the_words_of_nvidia_smi(visible: str, words: tuple[str, ...]) -> None:
    """Indices and UUIDs of whole GPUs are handed on; with anything else nvidia-smi is asked for all."""
    assert chosen(visible) == words
