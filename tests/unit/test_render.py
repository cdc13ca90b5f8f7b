"""`shoal render`, `shoal pyz` and `shoal health`: what they write, refuse and say."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from tests.unit.fleet_hosts import COMPOSE, PROCESS, plan

from shoal.errors import ConfigError, ShoalError
from shoal.ops import pyz, render
from shoal.plan.fleet import PlannedFile, PlannedSecret
from shoal.spec.registry import load
from shoal.ui.cli import main
from shoal.ui.health import look
from shoal.ui.health import main as health

Shoal = Callable[..., Result]
FILES = {"compose.yaml", ".env.example", "README.md", "shoal.pyz"}


@pytest.fixture
def shoal(monkeypatch: pytest.MonkeyPatch) -> Shoal:
    """`shoal WORDS` in this process, without a terminal."""

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["shoal", *words])
        return CliRunner().invoke(main, words, prog_name="shoal")

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_render_writes_a_folder(shoal: Shoal, tmp_path: Path) -> None:
    """The folder has the four files, shoal.pyz may be run, and the next step is named."""
    folder = tmp_path / "new" / "worker"
    done = shoal("render", "worker", "-o", str(folder))
    assert done.exit_code == 0
    assert set(contents(folder)) == FILES
    assert (folder / "shoal.pyz").read_bytes() == pyz.build()
    assert [(folder / name).stat().st_mode & 0o777 for name in ("shoal.pyz", "compose.yaml")] == [0o755, 0o644]
    assert done.output.endswith("cp .env.example .env, edit the three settings at its top, docker compose up -d\n")


def test_render_again_changes_nothing(shoal: Shoal, tmp_path: Path) -> None:
    """A second call finds all as it should be."""
    shoal("render", "head", "-o", str(tmp_path))
    (tmp_path / ".env").write_text("mine\n")
    before = contents(tmp_path)
    done = shoal("render", "head", "-o", str(tmp_path))
    assert (done.exit_code, done.output) == (0, f"{tmp_path} is as it should be\n")
    assert contents(tmp_path) == before


def test_a_registry_that_is_there_is_the_users(shoal: Shoal, tmp_path: Path) -> None:
    """`models.yaml` is written once; after that neither a diff nor an overwrite concerns it."""
    shoal("render", "head", "-o", str(tmp_path))
    (tmp_path / ".env").write_text("mine\n")
    registry = tmp_path / "models.yaml"
    assert load(registry) == {}
    registry.write_text("mine: {model: /models/mine}\n")
    done = shoal("render", "head", "-o", str(tmp_path), "--yes")
    assert (done.exit_code, done.output) == (0, f"{tmp_path} is as it should be\n")
    assert registry.read_text() == "mine: {model: /models/mine}\n"


def test_render_refuses_to_overwrite_unasked(shoal: Shoal, tmp_path: Path) -> None:
    """Without a terminal and without --yes it shows the diff, ends with 1 and writes nothing."""
    shoal("render", "worker", "-o", str(tmp_path))
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "shoal.pyz").write_bytes(b"old")
    before = contents(tmp_path)
    done = shoal("render", "worker", "-o", str(tmp_path))
    assert done.exit_code == 1
    assert f"--- {tmp_path}/compose.yaml\n" in done.output
    assert "\n-services: {}\n" in done.output
    assert f"{tmp_path}/shoal.pyz: 3 bytes, to be replaced by " in done.output
    assert done.stderr.endswith("fix: look at the diff above, then add --yes\n")
    assert contents(tmp_path) == before


def test_render_overwrites_when_told(shoal: Shoal, tmp_path: Path) -> None:
    """With --yes another profile replaces the first, and .env stays as it was edited."""
    shoal("render", "worker", "-o", str(tmp_path))
    (tmp_path / ".env").write_text("VLLM_HOST_IP=10.0.0.2\n")
    done = shoal("render", "worker", "--profile", "cpu", "-o", str(tmp_path), "--yes")
    assert done.exit_code == 0
    assert "runtime: nvidia" not in (tmp_path / "compose.yaml").read_text()
    assert (tmp_path / ".env").read_text() == "VLLM_HOST_IP=10.0.0.2\n"
    assert render.changes("worker", "cpu", tmp_path) == ()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_render_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    """A terminal is asked; a no leaves everything as it is."""
    render.write(render.changes("worker", "cpu", tmp_path))
    (tmp_path / "README.md").write_text("mine\n")
    monkeypatch.setattr(
        "shoal.ui.verbs.render.sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda _: True})()})
    )
    words = ["render", "worker", "--profile", "cpu", "-o", str(tmp_path)]
    done = CliRunner().invoke(main, words, prog_name="shoal", input=answer)
    assert done.exit_code == code
    assert ((tmp_path / "README.md").read_text() == "mine\n") is (code == 1)


NODE_ENV = "# the head\nRAY_MODE=head\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster file in the folder that the call is made from, whose hosts were looked at."""
    files = (
        PlannedFile(path="compose.yaml", mode=0o644, text="services: {}\n", why=""),
        PlannedFile(path="shoal.pyz", mode=0o755, sha256="f" * 64, why=""),
        PlannedFile(path="state", mode=0o777, link="../../state", why=""),
        PlannedFile(path=".env", mode=0o600, text=NODE_ENV, why=""),
    )
    planned = plan(COMPOSE)
    nodes = [node.model_copy(update={"files": files}) for node in planned.nodes]
    nodes[1] = nodes[1].model_copy(update={"secrets": (PlannedSecret(path="state/api.key", source="env:KEY", why=""),)})
    planned = planned.model_copy(update={"nodes": tuple(nodes)})
    desk = SimpleNamespace(folder=Path("/my desk"), make=lambda: None, adopt=lambda host, node: None)
    chair = SimpleNamespace(plan=planned, desk=desk, hosts=dict.fromkeys(["gpu-1", "gpu-2"]))
    monkeypatch.setattr(render, "prepare", lambda file, env: chair)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shoal.yaml").write_text(COMPOSE)
    return tmp_path / "shoal.yaml"


@pytest.mark.usefixtures("file")
def test_render_a_planned_node(shoal: Shoal) -> None:
    """A host of a file gets the files of its plan, its filled .env for its owner alone; secrets are put in by hand."""
    done = shoal("render", "-f", "shoal.yaml", "gpu-1")
    said = (
        "wrote gpu-1/compose.yaml\nwrote gpu-1/.env\nwrote gpu-1/shoal.pyz\nnext:\n"
        "  install -D -m 600 '/my desk/ray.token' gpu-1/state/ray.token\n"
        "  install -D -m 600 '/my desk/api.key' gpu-1/state/api.key\n"
        "  scp -rp gpu-1 me@one:\n  there, in the folder: docker compose up -d\n"
    )
    assert (done.exit_code, done.output) == (0, said)
    assert contents(Path("gpu-1")) == {
        "compose.yaml": b"services: {}\n", ".env": NODE_ENV.encode(), "shoal.pyz": pyz.build(),
    }  # fmt: skip
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path("gpu-1").iterdir()}
    assert modes == {"compose.yaml": 0o644, ".env": 0o600, "shoal.pyz": 0o755}


@pytest.mark.usefixtures("file")
def test_render_a_node_again(shoal: Shoal) -> None:
    """A second call changes nothing, an edited .env stays, and another file is overwritten only when told."""
    shoal("render", "-f", "shoal.yaml", "gpu-2", "-o", "x")
    Path("x/.env").write_text("mine\n")
    done = shoal("render", "-f", "shoal.yaml", "gpu-2", "-o", "x")
    assert done.output.startswith('x is as it should be\nnext:\n  printf %s "$KEY" | install -D -m 600 /dev/stdin x/st')
    Path("x/compose.yaml").write_text("mine\n")
    assert shoal("render", "-f", "shoal.yaml", "gpu-2", "-o", "x").exit_code == 1
    assert shoal("render", "-f", "shoal.yaml", "gpu-2", "-o", "x", "--yes").exit_code == 0
    assert (Path("x/.env").read_text(), Path("x/compose.yaml").read_text()) == ("mine\n", "services: {}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wroker",), 'no role "wroker"; did you mean "worker"?'),
        (("gpu-1",), "fix: a host of a file: shoal render -f FILE gpu-1"),
        (("-f", "shoal.yaml", "gpu-3"), 'shoal.yaml has no host "gpu-3"'),
        (("-f", "shoal.yaml", "gpu-1", "--profile", "cpu"), "--profile goes with a role"),
        (("-f", "process.yaml", "gpu-1"), "process.yaml: runtime: process has no containers"),
    ],
)
def test_render_of_what_is_not_there(shoal: Shoal, file: Path, words: tuple[str, ...], said: str) -> None:
    """A role or host that is not there, and a cluster without containers, are refused; nothing is written."""
    file.with_name("process.yaml").write_text(PROCESS)
    done = shoal("render", *words)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert sorted(path.name for path in file.parent.iterdir()) == ["process.yaml", "shoal.yaml"]


def test_render_names_what_it_cannot_use(tmp_path: Path) -> None:
    """A folder in the place of a file, and a file in the place of the folder, are named."""
    (tmp_path / "compose.yaml").mkdir()
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}/compose.yaml"):
        render.changes("worker", "cpu", tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ShoalError, match="cannot write"):
        render.write((render.Change(file / "compose.yaml", None, b""),))


def test_pyz_writes_the_file(shoal: Shoal, tmp_path: Path) -> None:
    """`shoal pyz -o FILE` writes what `make pyz` writes."""
    done = shoal("pyz", "-o", str(tmp_path / "s.pyz"))
    assert done.exit_code == 0
    assert (tmp_path / "s.pyz").read_bytes() == pyz.build()


class Answer(BaseHTTPRequestHandler):
    """Says ok at /healthz, or what its server was told to say."""

    def do_GET(self) -> None:
        self.send_response(self.server.code if self.path == "/healthz" else 404)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def endpoint(socket_enabled: None) -> Iterator[HTTPServer]:
    """An endpoint on loopback that answers with ``code``."""
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.code = 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("words", "variable"), [([], "SHOAL_AGENT_PORT"), (["serve"], "SHOAL_SERVE_PORT")])
def test_health_asks_the_program(
    endpoint: HTTPServer, capsys: pytest.CaptureFixture[str], words: list[str], variable: str
) -> None:
    """A program that answers is healthy, one that says no is not; one line each."""
    env = {"VLLM_HOST_IP": "127.0.0.1", variable: str(endpoint.server_port)}
    who = f"{words[0] if words else 'agent'} at 127.0.0.1:{endpoint.server_port}: ok\n"
    assert (health(env, words), capsys.readouterr().out) == (0, f"healthy: {who}")
    endpoint.code = 503  # type: ignore[attr-defined]
    assert (health(env, words), capsys.readouterr().out) == (1, f"unhealthy: {who}")


def test_health_asks_on_loopback_where_the_address_is_not_there_yet(
    endpoint: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that waits for its address answers on loopback; where nobody answers the address is named."""
    env = {"VLLM_HOST_IP": "127.0.0.5", "SHOAL_AGENT_PORT": str(endpoint.server_port)}
    who = f"agent at 127.0.0.1:{endpoint.server_port}: ok\n"
    assert (health(env, []), capsys.readouterr().out) == (0, f"healthy: {who}")
    endpoint.code = 503  # type: ignore[attr-defined]
    assert health(env, []) == 1
    assert capsys.readouterr().out.startswith("unhealthy: agent at 127.0.0.5:")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "unhealthy: VLLM_HOST_IP is not set"),
        (
            {"VLLM_HOST_IP": "127.0.0.1", "SHOAL_AGENT_PORT": "many"},
            "unhealthy: SHOAL_AGENT_PORT='many' is no port",
        ),
        (
            {"VLLM_HOST_IP": "127.0.0.1", "SHOAL_AGENT_PORT": "0"},
            "unhealthy: SHOAL_AGENT_PORT='0' is no port",
        ),
    ],
)
def test_health_names_a_wrong_setting(env: dict[str, str], said: str) -> None:
    """What cannot be asked is unhealthy, with the variable's name."""
    assert look(env, "agent") == (False, said)


def test_health_is_told_what_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that names no program is a wrong call."""
    assert health({}, ["engine"]) == 2
    assert capsys.readouterr().out == "usage: shoal health [agent|serve]\n"
