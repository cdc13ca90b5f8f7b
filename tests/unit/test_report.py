"""`shoal report`: one page that needs nothing but itself, whatever logs and names hold."""

import json
import re
import time
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.test_snapshot import free_port, serving

from shoal.agent.app import agent_app
from shoal.agent.key import derive
from shoal.agent.live import Live
from shoal.agent.readings import Readings
from shoal.bench.counters import NodeProof, Process
from shoal.bench.fabric import document
from shoal.bench.measure import Measured, Pair, Rank, Row
from shoal.bench.proof import NodeVerdict, Proof
from shoal.bench.proof import Row as ProofRow
from shoal.checks.base import Finding, Status
from shoal.checks.run import Choice
from shoal.engine.app import engine_app
from shoal.errors import HostUnreachable
from shoal.host import capture
from shoal.host.fake import FakeHost
from shoal.ops import report
from shoal.ops.doctor import examine
from shoal.ops.report import Contents, Running, Wish, gather
from shoal.ops.where import Reach
from shoal.state.journal import Entry, journal_file
from shoal.state.live import EngineLive, FindingLive, GpuLive, HcaLive, NodeLive, ServingLive
from shoal.state.status import (
    ClusterState,
    ClusterStatus,
    EngineState,
    EngineStatus,
    NodeState,
    NodeStatus,
    Transport,
    TransportStatus,
    Versions,
)
from shoal.ui.cli import main
from shoal.ui.report_page import render

MACHINES = Path(__file__).parents[1] / "machines"
EVIL = "<script>alert(1)</script>"
WORSE = "\"><img src=x onerror=alert(2)>\x1b[2J\x00\u202e' style='position:fixed"
KEY = "k3y-that-nobody-may-read-0123456789"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "h1", "h2", "h3", "p"),
    *("span", "code", "pre", "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *("svg", "line", "polyline", "circle", "text", "time"),
}


SERVING = ServingLive(
    tokens_per_s=12.5,
    ttft_p50_s=0.2,
    ttft_p95_s=0.9,
    itl_p50_s=0.03,
    itl_p95_s=0.05,
    kv_cache_use=0.25,
    requests_running=3,
    requests_waiting=0,
)


class Seen(HTMLParser):
    """The page as a browser reads it: its elements, their attributes, its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def node(name: str, detail: str = "") -> NodeLive:
    status = NodeStatus(
        name=name,
        role="head",
        address="10.0.0.1",
        state=NodeState.UP,
        stage="UP",
        detail=detail,
        gpus=1,
        versions=Versions(shoal="1", python="3.12"),
    )
    gpu = GpuLive(index=0, name=f"GPU {detail}", utilisation=0.5, memory_used_bytes=1 << 30, memory_total_bytes=2 << 30)
    hca = HcaLive(device="mlx5_0", port=1, netdev="e0", state="ACTIVE", rate_gbps=200.0, errors={"symbol_error": 3})
    finding = FindingLive(id="a.b", status="FAIL", title=detail)
    return NodeLive(node=status, at=1.0, gpus=(gpu,), hcas=(hca,), findings=(finding,))


def contents(words: str = "all is well") -> Contents:
    """Everything that a page can tell, with these words wherever somebody else decides them."""
    doctor = examine((), (MACHINES / "spark-pair",), Choice())
    findings = (*doctor.findings, Finding("x.y", words, Status.FAIL, words, words, node=words))
    engine = EngineStatus(
        state=EngineState.UNREADY,
        model=words,
        detail=words,
        phases={words: 1.5},
        last_fault=words,
        transport=TransportStatus(kind=Transport.TCP, detail=words, degraded=True),
    )
    process = Process(file="f", pid=1, alive=True, rank=0, ranks=2, network=words, hcas=(words,), last=words)
    running = Running(
        (node("head", words), node(words)),
        EngineLive(engine=engine, at=1.0, expected_nodes=2, serving=SERVING),
        (NodeProof(name=words, address="10.0.0.1", processes=(process,)),),
        (Entry(1.0, words, words, words, "error"),),
        (words,),
        words,
    )
    rows = tuple(Row("all_reduce", 1 << power, 1e-4 * power, power * 1.0, power * 1.1) for power in range(10, 31, 2))
    ranks = (Rank("10.0.0.1", "2.9", words, (words,), 200.0), Rank("10.0.0.2", "2.9", words, (words,), 200.0))
    measured = Measured(
        "nccl", ranks, (*rows, *(replace(row, name=words, busbw=row.busbw / 2) for row in rows)), (Pair(0, 1, 9.0),)
    )
    proof = Proof(
        "rdma",
        words,
        (NodeVerdict("n", "rdma", words, 5, words, None),),
        (ProofRow("n", words, words, 5, 5, 1.0, estimate=False, verdict=words),),
    )
    return Contents(
        1.7e9,
        replace(doctor, findings=findings),
        running=running,
        benches=((words, measured),),
        proof=proof,
        secrets=(KEY,),
    )


@pytest.mark.parametrize(
    "words", [EVIL, WORSE, f"{EVIL}{WORSE}", "</style><script>1</script>", "</title><svg onload=1>"]
)
def test_words_of_others_stay_words(words: str) -> None:
    """A tag in a log line, a node's name or a finding becomes text, in each place where a page shows one."""
    seen = Seen(render(contents(words)))
    assert seen.tags - ALLOWED == set()
    assert [one for one in seen.attributes if one[0].startswith("on") or one[0] in {"src", "href", "style"}] == []
    assert seen.text.count(words[:12]) > 15


def test_nothing_is_loaded_and_nothing_runs() -> None:
    """There is no address to load anything from, and the policy forbids it besides."""
    page = render(contents())
    seen = Seen(page)
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert ("content", policy) in seen.attributes
    assert re.findall(r"https?://|url\(|@import|<script|<link|<iframe", page) == []


def test_secrets_are_left_out() -> None:
    """A value that is known, wherever it stands, and one that stands beside a secret's name or looks like one."""
    words = f"key {KEY} HF_TOKEN=abcdef0123456789 hf_{'a' * 20} Authorization: Bearer zzzzzzzzzzzzzzzz"
    page = render(contents(words))
    assert "********" in page
    assert [one for one in (KEY, "abcdef0123456789", "hf_aaa", "zzzzzzzz") if one in page] == []


def test_what_a_terminal_would_obey_is_replaced() -> None:
    """Control characters, and marks that turn the order of letters around, are no part of the page."""
    page = render(contents(WORSE))
    assert [one for one in "\x1b\x00\u202e" if one in page] == []


def test_all_sections() -> None:
    """State, findings with fixes, plan, machines, proof, bench and events, in this order."""
    page = render(contents())
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    assert heads == ["Cluster", "Findings", "Machines", "Proof", "Bench", "Events"]
    text = Seen(page).text
    for words in (
        "unready",
        "12.5",
        "median 0.2 s",
        "symbol_error 3",
        "NVIDIA GB10",
        "proven",
        "all_reduce",
        "the link: 25",
    ):
        assert words in text


def test_a_capture_alone(tmp_path: Path) -> None:
    """Without a cluster: findings, the plan of the fabric with reasons, machines. Only its owner may read the file."""
    out = tmp_path / "r.html"
    words = ["report", "--from", str(MACHINES / "spark-pair"), "-o", str(out)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output, out.stat().st_mode & 0o777) == (0, f"wrote {out}\n", 0o600)
    page = out.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Findings", "Plan of the fabric", "Machines", "Proof"]
    assert "NCCL_IB_HCA=" in page


def test_a_cluster_on_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head tells how it stands; what nobody asked for has no section, and one that tells nothing is named."""
    status = ClusterStatus(
        cluster="far",
        state=ClusterState.READY,
        endpoint="http://10.0.0.1:8000/v1",
        nodes=(node("one").node, node("two").node),
        engine=EngineStatus(state=EngineState.READY, model="m"),
    )
    monkeypatch.setattr("shoal.ops.report.open_hosts", lambda _: {"one": FakeHost(name="one", reachable=False)})
    monkeypatch.setattr("shoal.ops.report.reader", lambda *_: lambda: status)
    file = tmp_path / "shoal.yaml"
    file.write_text("cluster: far\nhosts:\n- {name: one}\n")
    page = render(gather(Wish(file=file), {}))
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Cluster", "Findings", "Machines", "Proof"]
    text = Seen(page).text
    wanted = ("ready All is well: m answers on 2 nodes.", "Cluster far at http://10.0.0.1:8000/v1", "NO WAY one")
    assert [words for words in wanted if words not in text] == []

    def silent() -> ClusterStatus:
        raise HostUnreachable("nobody answers", why="the link is down")

    monkeypatch.setattr("shoal.ops.report.reader", lambda *_: silent)
    assert "silent nobody answers: the link is down" in Seen(render(gather(Wish(file=file), {}))).text


@pytest.mark.enable_socket
async def test_a_cluster_that_runs_here(tmp_path: Path) -> None:
    """Each agent and the supervisor are asked, with the key; who does not answer is named; the journal is read."""
    head, worker = "127.0.0.1", "127.0.0.2"
    machine = capture.load(MACHINES / "spark-pair")[0]
    status = node("one").node.model_copy(update={"address": head})
    bad = Finding("x.y", "it is well", Status.FAIL, "what was read", "mend it")
    live = Live(lambda: status, Readings(lambda _: machine), lambda: (bad,), tuple)
    told = EngineLive(engine=EngineStatus(state=EngineState.READY, model="m"), at=1.0, expected_nodes=2)

    async def never() -> EngineStatus:
        raise AssertionError("nobody asks for a token")

    apps = {
        head: agent_app(lambda: status, (live.route(lambda: "the-key"),)),
        "127.0.0.3": engine_app(never, lambda: told, lambda: ""),
    }
    journal_file(tmp_path, "one").parent.mkdir()
    entry = Entry(time.time(), "one", "up", "it is in the cluster")
    journal_file(tmp_path, "one").write_text(entry.line() + "\n")
    port = free_port()
    async with serving(port, apps):
        where = Reach((head, worker), port, "the-key", f"http://127.0.0.3:{port}", "http://e/v1", "")
        found = await report._ask(where, {"SHOAL_STATE_DIR": str(tmp_path)})
    assert (found.engine, found.events, found.proofs) == (told, (entry,), ())
    assert [(one.node, len(one.hcas), one.findings[0].evidence) for one in found.nodes] == [
        (status, 4, "what was read")
    ]
    assert [words.startswith(f"http://{worker}:{port}/live: ") for words in found.silent] == [True]


def test_results_of_before(tmp_path: Path) -> None:
    """A kept bench and a kept proof are read back as they were."""
    told = contents()
    bench, proof = tmp_path / "bench.json", tmp_path / "proof.json"
    bench.write_text(json.dumps(document(told.benches[0][1], 200.0)))
    assert told.proof is not None
    proof.write_text(json.dumps(asdict(told.proof) | {"proven": True}))
    found = gather(Wish(captures=(MACHINES / "plain-vm",), benches=(bench,), proof=proof), {})
    assert (found.proof, found.benches[0][0], found.benches[0][1].rows[0]) == (
        told.proof,
        "bench.json",
        told.benches[0][1].rows[0],
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bench", "{none}"], "shoal bench fabric --baseline FILE"),
        (["--proof", "{none}"], "shoal prove --json > FILE"),
        (["--proof", "{other}"], "holds no proof"),
        (["-f", "{other}", "host"], "both a cluster file and hosts"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, words: list[str], said: str) -> None:
    """With what makes one; and nothing is written."""
    (tmp_path / "other").write_text("[]")
    places = {"none": tmp_path / "none", "other": tmp_path / "other"}
    out = tmp_path / "r.html"
    done = CliRunner().invoke(main, ["report", "-o", str(out), *(word.format(**places) for word in words)])
    assert (done.exit_code, said in done.output, out.exists()) == (2, True, False)


def test_the_secrets_of_a_cluster_file_are_known(tmp_path: Path) -> None:
    """The keys that the operator keeps of the file's cluster, and the one that its file names, are masked by value."""
    file = tmp_path / "shoal.yaml"
    file.write_text("cluster: lab\nhosts: [{name: a}]\nserving: {api-key: env:MY_KEY}\n")
    kept = tmp_path / "clusters" / "lab"
    kept.mkdir(parents=True)
    (kept / "api.key").write_text("generated-key\n")
    (kept / "ray.token").write_text("ray-token\n")
    env = {"SHOAL_STATE_DIR": str(tmp_path), "MY_KEY": "own-key"}
    assert set(report._secrets(None, file, env)) == {"generated-key", "ray-token", derive("ray-token"), "own-key"}
