"""The terminal view: what it says of a document, and what it does with keys and with an agent that falls silent."""

import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import DataTable, Static, TabbedContent

from shoal.errors import NotRunning
from shoal.state.live import (
    ClusterLive,
    EventLive,
    FindingLive,
    GpuLive,
    HcaLive,
    NodeLive,
    RailLive,
    ServingLive,
    Verdict,
)
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.top import words
from shoal.ui.top.app import Top

GPUS = (
    GpuLive(index=0, utilisation=0.5, memory_used_bytes=40 << 30, memory_total_bytes=80 << 30, power_watts=300.0),
    GpuLive(index=1, utilisation=0.7, memory_used_bytes=20 << 30, memory_total_bytes=80 << 30, temperature_celsius=71),
)
HCA = HcaLive(device="mlx5_0", port=1, netdev="eth1", link_layer="Ethernet", state="4: ACTIVE", rate_gbps=200.0)
RAIL = RailLive(node="w", device="mlx5_0", port=1, received_gbps=12.345, sent_gbps=0.0, errors_moved={"out_of_seq": 3})
FINDING = FindingLive(
    id="roce.mtu", status="WARN", title="large frames", evidence="mtu 1500", fix="ip link set mtu 9000"
)
FAILURE = FindingLive(id="host.memlock", status="FAIL", title="memory may be locked")


def cluster(**more: object) -> ClusterLive:
    """A head and a lost worker."""
    head = NodeStatus(name="h", role="head", address="10.0.0.1", state=NodeState.UP, gpus=2)
    worker = NodeStatus(name="w", role="worker", address="10.0.0.2", state=NodeState.LOST, detail="silent for 30 s")
    engine = EngineStatus(state=EngineState.READY, model="m", phases={"gate": 1.0, "weights": 2.5})
    fields: dict[str, object] = {
        "at": 1.0,
        "status": ClusterStatus(cluster="c", state=ClusterState.DEGRADED, nodes=(head, worker), engine=engine),
        "nodes": (
            NodeLive(node=head, at=1.0, gpus=GPUS, findings=(FINDING,)),
            NodeLive(node=worker, at=1.0, hcas=(HCA,)),
        ),
        "rails": (RAIL,),
        "serving": ServingLive(tokens_per_s=41.26, ttft_p50_s=0.05, kv_cache_use=0.25, requests_running=2),
        "events": (EventLive(at=0.0, node="w", kind="lost", text="silent", level="warn"),),
        "verdict": Verdict(
            level="bad", words="Node w is lost: silent for 30 s.", fix="ssh 10.0.0.2 docker logs ray-worker"
        ),
    }
    return ClusterLive.model_validate(fields | more)


def text(row: words.Row) -> list[str]:
    return [cell.plain for cell in row]


def test_the_verdict_has_a_mark_beside_its_colour() -> None:
    """Who sees no colours reads the mark; the command stands on a line of its own."""
    shown = words.verdict(cluster())
    assert (shown.plain, str(shown.style)) == (
        "✗ Node w is lost: silent for 30 s.\n  ssh 10.0.0.2 docker logs ray-worker",
        "bold red",
    )


def test_a_node_is_one_line() -> None:
    """GPUs are summed up: the mean of their use, the memory of all, the hottest, the power of those that tell it."""
    up, lost = cluster().nodes
    assert [text(words.node_row(up)), text(words.node_row(lost))] == [
        ["✓", "h", "head", "10.0.0.1", "up", "2", "60%", "60 of 160 GiB", "71", "300", ""],
        ["✗", "w", "worker", "10.0.0.2", "lost", "0", "-", "-", "-", "-", "silent for 30 s"],
    ]


def test_failed_checks_are_counted_where_a_node_says_nothing() -> None:
    """A node that is up may still have failed a check."""
    up = cluster().nodes[0].model_copy(update={"findings": (FAILURE, FINDING)})
    assert text(words.node_row(up))[-1] == "1 check(s) failed"


@pytest.mark.parametrize(
    ("hca", "rail", "mark"),
    [
        (HCA, None, "✓"),
        (HCA, RAIL, "!"),
        (HCA.model_copy(update={"state": "1: DOWN"}), None, "✗"),
    ],
)
def test_a_rail_is_judged_by_its_state_and_its_errors(hca: HcaLive, rail: RailLive | None, mark: str) -> None:
    """A port that is down is bad, one whose error counters grow is to be looked at."""
    assert text(words.rail_row("w", hca, rail))[0] == mark


def test_rails_stand_beside_their_rates() -> None:
    """Each port with what it carried in the last interval, and which errors grew by how much."""
    assert [text(row) for row in words.rail_rows(cluster())] == [
        ["!", "w", "mlx5_0/1", "eth1", "4: ACTIVE", "200 Ethernet", "12.35", "0.00", "out_of_seq +3"]
    ]


def test_the_engine_says_what_it_does_for_its_users() -> None:
    """State, phases, then rates; what vLLM does not tell is a dash."""
    live = cluster()
    assert words.engine(live.status.engine, live.serving, [1.0, None, 2.0]).plain.splitlines() == [
        "engine ready  m",
        "phases gate 1.0 s  weights 2.5 s",
        (
            "41.3 tokens/s (prompt -)   first token 50 ms / -   between - / - (p50 / p95)   2 running, - waiting"
            "   KV cache 25%"
        ),
        "▅ █",
    ]


@pytest.mark.parametrize(("values", "line"), [([], ""), ([0.0, None], "▁▁"), ([0.0, 7.0], "▁█")])
def test_a_sparkline_is_measured_by_its_largest_value(values: list[float | None], line: str) -> None:
    """Nothing but zeros is a flat line."""
    assert words.sparkline(values) == line


def test_failures_stand_before_warnings() -> None:
    """Whoever reads one finding reads the worst."""
    live = cluster()
    nodes = (live.nodes[0], live.nodes[1].model_copy(update={"findings": (FAILURE,)}))
    assert words.findings(live.model_copy(update={"nodes": nodes})).plain.splitlines() == [
        "FAIL w  host.memlock  memory may be locked",
        "WARN h  roce.mtu  large frames",
        "     mtu 1500",
        "     fix: ip link set mtu 9000",
    ]


def test_nothing_that_a_node_says_is_obeyed_by_the_terminal() -> None:
    """Escape sequences, line breaks and markup of names and events come out as text."""
    event = EventLive(at=0.0, node="\x1b[2Jw", kind="k", text="[red]a\nb\x07[/]")
    shown = words.events(cluster(events=(event,)))
    assert ("\x1b" in shown.plain, "\x07" in shown.plain, shown.plain.count("\n"), "[red]a b" in shown.plain) == (
        False,
        False,
        1,
        True,
    )


def content(app: Top, name: str) -> str:
    """What that part shows; empty until it is there."""
    found = app.query(name)
    shown = found.first(Static).content if found else ""
    return shown.plain if isinstance(shown, Text) else str(shown)


async def until(pilot: Pilot[None], app: Top, words: str) -> str:
    """The verdict, once it has these words; as it is after a while where it does not get them."""
    for _ in range(500):
        await pilot.pause(0.01)
        if words in content(app, "#verdict"):
            break
    return content(app, "#verdict")


async def test_the_screen_has_what_the_document_says_and_keys_choose_the_tab() -> None:
    """Verdict and nodes are there at the start; a letter goes to each tab."""

    async def look() -> ClusterLive:
        return cluster()

    app = Top(look)
    async with app.run_test(size=(120, 40)) as pilot:
        assert (await until(pilot, app, "is lost")).startswith("✗ Node w is lost")
        seen = []
        for key in "rfen":
            await pilot.press(key)
            seen.append(app.query_one(TabbedContent).active)
        rows = [app.query_one(f"#{name}-table", DataTable).row_count for name in ("node", "rail")]
        assert (seen, rows) == (["rails", "findings", "events", "nodes"], [2, 1])


async def test_an_agent_that_falls_silent_makes_the_screen_stale() -> None:
    """What was seen stays, with the time and the reason above it; nothing ends."""
    answers = iter([cluster()])

    async def look() -> ClusterLive:
        found = next(answers, None)
        if found is None:
            raise NotRunning("the head's agent does not answer", why="connection refused")
        return found

    app = Top(look, every=0.01)
    async with app.run_test(size=(120, 40)) as pilot:
        shown = await until(pilot, app, "stale")
        assert shown.startswith("✗ stale since ")
        assert shown.endswith("the head's agent does not answer\n  connection refused")
        assert app.query_one("#node-table", DataTable).row_count == 2


async def test_a_head_that_never_answered_is_no_stale_one() -> None:
    """Without anything seen there is only the reason."""

    async def look() -> ClusterLive:
        raise NotRunning("the head's agent does not answer", fix="shoal status")

    app = Top(look)
    async with app.run_test(size=(120, 40)) as pilot:
        assert await until(pilot, app, "does not answer") == "✗ the head's agent does not answer\n  shoal status"
