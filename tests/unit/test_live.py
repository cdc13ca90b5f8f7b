"""What moves on a node: `/live` of an agent, of captured machines and of drivers that hang."""

import asyncio
import threading
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shoal.agent.heart import Heart
from shoal.agent.key import bearer
from shoal.agent.live import Live, bad, beats
from shoal.agent.readings import ERRORS, GPUS, HCAS, Readings, gpus, hcas
from shoal.agent.talk import Board
from shoal.checks.base import Finding, Severity, Status
from shoal.errors import CommandFailed
from shoal.host import capture
from shoal.host.gather import Request
from shoal.host.snapshot import Reply, Snapshot
from shoal.state.live import FindingLive, GpuLive, HcaLive, NodeLive
from shoal.state.status import NodeState, NodeStatus

MACHINES = Path(__file__).parents[1] / "machines"
NODE = NodeStatus(name="gx1", role="head", address="10.0.0.1", state=NodeState.UP, stage="UP", gpus=1)
FINDINGS = (
    Finding("gpu.answers", "nvidia-smi answers", Status.OK),
    Finding("rdma.link-steady", "links have stayed up", Status.FAIL, "secret words", "mend it", Severity.ERROR),
    Finding("host.swap", "swap is off", Status.WARN, "2 GiB", "swapoff -a", Severity.WARNING),
)
PORT = "/sys/class/infiniband/rxe0/ports/1"
RXE = {
    f"{PORT}/state": "4: ACTIVE",
    f"{PORT}/link_layer": "Ethernet",
    f"{PORT}/rate": "2.5 Gb/sec (1X SDR)",
    f"{PORT}/gid_attrs/ndevs/0": "eth0",
    f"{PORT}/hw_counters/sent_pkts": "10",
    f"{PORT}/hw_counters/rcvd_pkts": "20",
    f"{PORT}/hw_counters/out_of_sequence": "3",
    f"{PORT}/hw_counters/send_rnr_err": "9",
    "/sys/class/net/eth0/mtu": "1500",
}


def machine(name: str) -> Snapshot:
    """A captured machine; of several the first."""
    return capture.load(MACHINES / name)[0]


def live(look: Snapshot, findings: tuple[Finding, ...] = FINDINGS) -> Live:
    """An agent's reading of that machine."""
    return Live(lambda: NODE, Readings(lambda _: look), lambda: findings, tuple)


def test_a_node_of_a_captured_machine() -> None:
    """Each GPU and each port of each HCA is told, with what the machine does not tell left open."""
    told = asyncio.run(live(machine("spark-pair")).look())
    assert told.gpus == (
        GpuLive(
            index=0,
            name="NVIDIA GB10",
            uuid="GPU-000f01000-0000-4000-8000-000000000000",
            utilisation=0.0,
            temperature_celsius=34.0,
            power_watts=12.0,
        ),
    )
    assert [(one.device, one.port, one.netdev, one.state, one.rate_gbps) for one in told.hcas] == [
        ("roceP2p1s0f0", 1, "enP2p1s0f0np0", "DOWN", 40.0),
        ("roceP2p1s0f1", 1, "enP2p1s0f1np1", "ACTIVE", 200.0),
        ("rocep1s0f0", 1, "enp1s0f0np0", "DOWN", 40.0),
        ("rocep1s0f1", 1, "enp1s0f1np1", "ACTIVE", 200.0),
    ]
    assert {name for one in told.hcas for name in one.errors} <= set(ERRORS)


def test_a_machine_without_gpus_and_hcas() -> None:
    """There is nothing to tell of them."""
    told = asyncio.run(live(machine("plain-vm"), ()).look())
    assert (told.gpus, told.hcas, told.findings) == ((), (), ())


def test_bytes_and_errors() -> None:
    """A card counts words of four bytes; errors are those that the doctor judges."""
    base = "/sys/class/infiniband/mlx5_0/ports/1"
    counted = {"port_xmit_data": "1000", "port_rcv_data": "2000", "symbol_error": "5", "multicast_rcv_packets": "7"}
    files = {f"{base}/state": "4: ACTIVE"} | {f"{base}/counters/{name}": text for name, text in counted.items()}
    (told,) = hcas(Snapshot("n", files=files, looked=HCAS.files))
    assert (told.received_bytes_total, told.sent_bytes_total, told.errors) == (8000, 4000, {"symbol_error": 5})


def test_soft_roce_is_estimated() -> None:
    """It counts packets: bytes are at most so many times the MTU, and that is said."""
    assert hcas(Snapshot("n", files=RXE, looked=HCAS.files)) == (
        HcaLive(
            device="rxe0",
            port=1,
            netdev="eth0",
            link_layer="Ethernet",
            state="ACTIVE",
            rate_gbps=2.5,
            received_bytes_total=20 * 1024,
            sent_bytes_total=10 * 1024,
            estimate=True,
            errors={"out_of_sequence": 3},
        ),
    )


def test_the_driver_is_asked_once_in_a_while() -> None:
    """Many who ask at once, and again at once, cost one question to each source."""
    asked: list[Request] = []

    def look(request: Request) -> Snapshot:
        asked.append(request)
        return machine("h200x2")

    async def ask() -> int:
        readings = Readings(look)
        many = await asyncio.gather(*(readings.get() for _ in range(20)))
        return len(many[-1].gpus)

    assert asyncio.run(ask()) == 2
    assert sorted(asked, key=repr) == sorted([GPUS, HCAS], key=repr)


def test_a_machine_without_a_driver_is_not_asked_again() -> None:
    """Nothing is started for nothing, for as long as the agent lives."""
    line = " ".join(GPUS.commands[0].argv)
    reply = Snapshot("n", replies={line: Reply(127)}, looked=HCAS.files)
    readings = Readings(lambda _: reply)
    assert readings._read_gpus() == ((), float("inf"))


@pytest.mark.parametrize("trouble", [Reply(124, "", "did not end"), Reply(9, "NVIDIA-SMI has failed", "")])
def test_a_driver_in_trouble_is_left_alone_for_a_while(trouble: Reply) -> None:
    """Each further question may hang as well."""
    line = " ".join(GPUS.commands[0].argv)
    assert Readings(lambda _: Snapshot("n", replies={line: trouble}))._read_gpus() == ((), 60.0)


def test_what_cannot_be_killed_is_asked_less_and_less() -> None:
    """Each question to it would leave a thread for good: GPUs whose command never ended, ports whose file did not."""
    line = " ".join(GPUS.commands[0].argv)
    stuck = Snapshot("n", errors={"/sys/class/infiniband/mlx5_0/ports/1/state": "ETIMEDOUT"})
    well = Snapshot("n", replies={line: Reply(124)})
    told = iter([*[stuck] * 8, well, stuck])
    readings = Readings(lambda _: next(told))
    assert [readings._read_gpus()[1] for _ in range(5)] == [60.0, 120.0, 240.0, 480.0, 960.0]
    assert [readings._read_hcas()[1] for _ in range(5)] == [60.0, 120.0, 240.0, 1.0, 60.0]


def test_a_driver_that_hangs_holds_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks gets what was read last; the reading that hangs is not begun a second time."""
    monkeypatch.setattr("shoal.agent.readings.PATIENCE", 0.01)
    go, begun = threading.Event(), []

    def look(request: Request) -> Snapshot:
        if request is HCAS:
            begun.append(request)
            go.wait(20)
        return machine("h200x2")

    async def ask() -> tuple[int, int]:
        readings = Readings(look)
        first = await readings.get()
        second = await readings.get()
        go.set()
        return len(first.hcas), len(second.hcas)

    assert (asyncio.run(ask()), len(begun)) == ((0, 0), 1)


def test_a_machine_that_cannot_be_read_is_no_fault() -> None:
    """The answer comes without its GPUs and HCAs."""

    def look(_: Request) -> Snapshot:
        raise CommandFailed("no")

    told = asyncio.run(Live(lambda: NODE, Readings(look), lambda: (), tuple).look())
    assert (told.node, told.gpus, told.hcas) == (NODE, (), ())


def test_findings_that_somebody_should_see() -> None:
    """What fails and what warns, with their severity."""
    assert bad(FINDINGS) == (
        FindingLive(
            id="rdma.link-steady",
            status="FAIL",
            severity="error",
            title="links have stayed up",
            evidence="secret words",
            fix="mend it",
        ),
        FindingLive(
            id="host.swap", status="WARN", severity="warning", title="swap is off", evidence="2 GiB", fix="swapoff -a"
        ),
    )


@pytest.mark.parametrize(
    ("key", "shown", "evidence"),
    [("k", "k", "secret words"), ("k", "wrong", ""), ("k", None, ""), (None, None, "secret words")],
)
def test_evidence_is_for_those_who_show_the_key(key: str | None, shown: str | None, evidence: str) -> None:
    """Everything else is open, as the status is; where a cluster has no key there is nobody to tell apart."""
    app = Starlette(routes=[live(machine("plain-vm")).route(lambda: key)])
    told = NodeLive.model_validate_json(TestClient(app).get("/live", headers=bearer(shown)).text)
    assert (told.node, [one.evidence for one in told.findings][:1]) == (NODE, [evidence])


def test_who_was_heard() -> None:
    """The head tells of each worker; who has heard nothing tells nothing."""
    board = Board(30.0)
    board.hear(NODE.model_copy(update={"name": "gx2", "address": "10.0.0.2", "role": "worker"}))
    told = beats(board, Heart("http://127.0.0.1:1", lambda: NODE, lambda: None))
    assert [(one.name, one.address, one.age_s is not None) for one in told] == [("gx2", "10.0.0.2", True)]


def test_gpus_of_a_real_host() -> None:
    """Memory in bytes, and utilisation as a share of one."""
    first = gpus(machine("h200x2"))[0]
    assert (first.memory_total_bytes, first.utilisation, first.power_watts) == (143771 << 20, 0.0, 82.2)
