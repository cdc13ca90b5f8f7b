"""`shoal dashboards`: what it writes, of which metrics, and what it leaves alone."""

import json
import re
import stat
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.core import Metric
from tests.conftest import Golden
from tests.unit.fleet_hosts import PROCESS
from tests.unit.fleet_hosts import plan as fleet_plan

from shoal.agent.metrics import node_metrics
from shoal.checks.rdma_counters import RULES
from shoal.engine.metrics import engine_metrics
from shoal.lab.sim.metrics import Metrics
from shoal.ops.dashboards import rules, targets
from shoal.ops.fleet.desk import desk
from shoal.render.dashboards.alerts import ERRORS
from shoal.render.dashboards.boards import BOARDS
from shoal.render.dashboards.panels import COLUMNS, Board, Panel, grafana
from shoal.render.dashboards.stack import Targets, files
from shoal.state.live import EngineLive, NodeLive
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.cli import main

NODE = NodeLive(node=NodeStatus(name="n", role="head", address="10.0.0.1", state=NodeState.UP), at=1)
ENGINE = EngineLive(engine=EngineStatus(state=EngineState.READY, model="m"), at=1)
TARGETS = Targets(("10.0.0.1:8700", "10.0.0.2:8700"), "10.0.0.1:8701", "10.0.0.1:8000", "/state/api.key")
PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]
METRIC = re.compile(r"\b((?:shoal|vllm)[_:][a-z0-9_]+)")
SPEC = """\
cluster: c
hosts:
- {name: one, fabric: 10.0.0.1}
- {name: two, fabric: "fd00::2"}
serving: {port: 9000, host: loopback}
"""


def series() -> set[str]:
    """The name of every series that agent, supervisor and the simulated engine tell of."""
    told = (*node_metrics(NODE), *engine_metrics(ENGINE), *Metrics().registry.collect())
    return {name for metric in told for name in _names(metric)}


def _names(metric: Metric) -> list[str]:
    if metric.type == "histogram":
        return [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
    return [metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_what_there_is(panel: Panel) -> None:
    """Each metric in its queries is one of ours or of vLLM's, and what it needs is told."""
    named = [name for query in panel.queries for name in METRIC.findall(query.expr)]
    assert set(named) <= series()
    needs = "gpu" if any("_gpu_" in name for name in named) else "hca" if any("_hca_" in name for name in named) else ""
    assert (panel.needs, bool(panel.about), bool(named)) == (needs, True, True)


def test_vllm_has_what_is_shown_of_it() -> None:
    """Each of vLLM's metrics on a dashboard, and in the simulated engine, stands in the source of the vLLM here."""
    root = next(iter(getattr(find_spec("vllm"), "submodule_search_locations", None) or ()), None)
    if root is None:
        pytest.skip("vLLM is not installed")
    known = set(re.findall(r'"(vllm:\w+)"', (Path(root) / "v1" / "metrics" / "loggers.py").read_text()))
    simulated = {metric.name for metric in Metrics().registry.collect()}
    shown = {
        name for board in BOARDS for panel in board.panels for one in panel.queries for name in METRIC.findall(one.expr)
    }
    bare = {re.sub(r"_(total|bucket)$", "", name) for name in shown if name.startswith("vllm")}
    assert (bare | simulated) - known == set()
    assert len(bare) > 8


def test_alerts_ask_for_what_there_is() -> None:
    """Likewise; `up` is Prometheus' own."""
    named = [name for rule in rules() for name in METRIC.findall(rule.expr)]
    assert set(named) - series() == set()
    assert len(set(named)) > 8


def test_every_metric_of_ours_is_shown() -> None:
    """No metric is on no dashboard, but for what a picture of it would say twice."""
    shown = {
        name for board in BOARDS for panel in board.panels for one in panel.queries for name in METRIC.findall(one.expr)
    }
    ours = {name for name in series() if name.startswith("shoal_")}
    assert ours - shown == {"shoal_node_gpus", "shoal_gpu_memory_size_bytes"}


def test_errors_have_the_doctor_s_limits() -> None:
    """One alert for each of its rules about ports, with its counters and its limit."""
    told = {rule.labels["check"]: rule.expr for rule in rules() if rule.name == ERRORS}
    assert set(told) == {rule.id for rule in RULES if rule.of == "rdma"}
    chosen = 'shoal_hca_errors_total{counter=~"symbol_error|symbol_error_phy"}'
    assert told["rdma.symbol-errors"] == f"sum by (node, device, port) (rate({chosen}[5m])) > 10"
    assert told["rdma.link-steady"].endswith("[10m])) > 0")


@pytest.mark.parametrize("board", BOARDS, ids=[board.uid for board in BOARDS])
def test_panels_lie_side_by_side(board: Board) -> None:
    """None covers another or reaches beyond the width, and each has a number of its own."""
    placed = grafana(board)["panels"]
    cells = [
        (x, y)
        for one in placed
        for x in range(one["gridPos"]["x"], one["gridPos"]["x"] + one["gridPos"]["w"])
        for y in range(one["gridPos"]["y"], one["gridPos"]["y"] + one["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < COLUMNS
    assert [one["id"] for one in placed] == list(range(1, len(placed) + 1))


def test_the_folder(golden: Golden) -> None:
    """Every file but the pictures, line by line."""
    found = files(TARGETS, rules())
    golden("dashboards.json", {name: text.splitlines() for name, text in found.items() if not name.endswith(".json")})
    assert {name for name in found if name.endswith(".json")} == {
        f"grafana/dashboards/shoal-{name}.json" for name in ("cluster", "fabric", "engine")
    }


def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    """Neither of the two, unless somebody changes it; and no container may do more than a user."""
    call(tmp_path, "10.0.0.1")
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    assert {name: (one["cap_drop"], one.get("privileged"), one.get("ports")) for name, one in services.items()} == {
        "prometheus": (["ALL"], None, None),
        "grafana": (["ALL"], None, None),
    }
    env = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if "=" in line)
    assert (env["PROMETHEUS_LISTEN"], env["GRAFANA_ADDRESS"]) == ("127.0.0.1:9090", "127.0.0.1")
    used = set(re.findall(r"\$\{(\w+)\}", (tmp_path / "compose.yaml").read_text()))
    assert used == set(env)


def test_the_compose_specification_allows_every_key() -> None:
    """In the state in which docker-compose 1.29.2 has its schema."""
    rules_of_compose = json.loads((Path(__file__).parent / "data" / "compose-spec-1.29.2.json").read_text())
    document = yaml.safe_load(files(TARGETS, ())["compose.yaml"])
    kind = jsonschema.Draft201909Validator(rules_of_compose)
    assert [error.message for error in kind.iter_errors(document)] == []


def call(folder: Path, *words: str, code: int = 0) -> str:
    """Run the verb into that folder."""
    done = CliRunner().invoke(main, ["dashboards", "-o", str(folder), *words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_second_time_nothing_is_written(tmp_path: Path) -> None:
    """The password stays what it was, and only its owner may read it."""
    call(tmp_path, "10.0.0.1", "10.0.0.2")
    secret = tmp_path / "grafana.password"
    before = secret.read_text()
    assert call(tmp_path, "10.0.0.1", "10.0.0.2").startswith("all is there already\n")
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode), len(before) >= 20) == (before, 0o600, True)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_another_node_is_shown_before_it_is_written(tmp_path: Path) -> None:
    """Nobody is there to answer: nothing is overwritten until --yes is said. What is the user's stays."""
    call(tmp_path, "10.0.0.1")
    (tmp_path / ".env").write_text("MINE=1\n")
    refused = call(tmp_path, "10.0.0.1", "10.0.0.2", code=1)
    agents = tmp_path / "prometheus" / "targets" / "agents.yml"
    assert ("+  - 10.0.0.2:8700" in refused, "10.0.0.2" in agents.read_text()) == (True, False)
    call(tmp_path, "10.0.0.1", "10.0.0.2", "--yes")
    assert yaml.safe_load(agents.read_text()) == [{"targets": ["10.0.0.1:8700", "10.0.0.2:8700"]}]
    assert (tmp_path / ".env").read_text() == "MINE=1\n"


def test_targets_of_a_cluster_file(tmp_path: Path) -> None:
    """Agents on the fabric, the supervisor on the head, the API where it listens."""
    file = tmp_path / "shoal.yaml"
    file.write_text(SPEC)
    env = {"SHOAL_STATE_DIR": str(tmp_path)}
    assert targets(file, (), env) == Targets(("10.0.0.1:8700", "[fd00::2]:8700"), "10.0.0.1:8701", "127.0.0.1:9000")


def test_targets_of_a_cluster_that_was_brought_up_from_here(tmp_path: Path) -> None:
    """Its last plan knows what the file leaves open; the key that was made here is named."""
    file = tmp_path / "shoal.yaml"
    file.write_text(PROCESS)
    plan = fleet_plan()
    here = desk(plan.cluster, {"SHOAL_STATE_DIR": str(tmp_path / "state")})
    here.make()
    here.keep(plan)
    (here.folder / "api.key").write_text("k")
    assert targets(file, (), {"SHOAL_STATE_DIR": str(tmp_path / "state")}) == Targets(
        tuple(f"{node.address}:{plan.agent_port}" for node in plan.nodes),
        f"{plan.head.address}:{plan.serve_port}",
        plan.endpoint.removeprefix("http://").removesuffix("/v1"),
        str(here.folder / "api.key"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["10.0.0.1", "-f", "{file}"], "both a cluster file and addresses"),
        (["node1"], '"node1" is no IP address'),
        (["-f", "{file}"], "`fabric` of two is auto"),
    ],
)
def test_what_cannot_be_scraped_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    """With the reason, and nothing is written."""
    file = tmp_path / "shoal.yaml"
    file.write_text(SPEC.replace(', fabric: "fd00::2"', ""))
    told = call(tmp_path / "out", *(word.format(file=file) for word in words), code=2)
    assert said in told
    assert not (tmp_path / "out").exists()


def test_no_cluster_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing runs and no file is here, it says what to name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_STATE_DIR", str(tmp_path / "state"))
    assert "no cluster is up on this machine" in call(tmp_path / "out", code=4)


def test_pictures_are_json_that_grafana_knows(tmp_path: Path) -> None:
    """Each has its uid, a data source that can be chosen, and queries with letters of their own."""
    call(tmp_path, "10.0.0.1")
    for board in BOARDS:
        told = json.loads((tmp_path / "grafana" / "dashboards" / f"{board.uid}.json").read_text())
        assert (told["uid"], [one["name"] for one in told["templating"]["list"]]) == (board.uid, ["datasource", "node"])
        for panel in told["panels"]:
            letters = [one["refId"] for one in panel["targets"]]
            assert len(set(letters)) == len(letters) == len(panel["targets"]) > 0
