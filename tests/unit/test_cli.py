"""The command line where no cluster is up: words, exit codes, and never a traceback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shoal import __version__
from shoal.ops import local
from shoal.state.status import ClusterState, ClusterStatus
from shoal.ui.cli import VERBS, main

NO_FILE = """\
error: there is no shoal.yaml here, and no -f FILE
fix: shoal up --local   on this machine; on several: shoal init HOST..., then shoal up
"""
UNKNOWN_MODEL = """\
error: unknown model "smolm2"
why: did you mean "smollm2"?
fix: give a key of the registry or the path of a folder
"""
HELP = Path(__file__).parent / "data" / "help.txt"


class Shoal:
    """`shoal WORDS` in this process, with a state folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = folder / "state"
        self._monkeypatch = monkeypatch

    def __call__(self, *words: str, **env: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["shoal", *words])
        where = {"SHOAL_STATE_DIR": str(self.state), "SHOAL_CACHE_DIR": str(self.state / "cache"), "COLUMNS": "80"}
        result = CliRunner().invoke(main, words, prog_name="shoal", env=where | env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def shoal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shoal:
    return Shoal(tmp_path, monkeypatch)


def program(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """`python -m shoal WORDS` in a process of its own."""
    argv = [sys.executable, "-m", "shoal", *words]
    # PYTHONPATH: the child runs the same sources as this process, also in a second working tree.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    clean = kept | {"COLUMNS": "80"} | env
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=clean, timeout=60)


def test_help_page(shoal: Shoal, request: pytest.FixtureRequest) -> None:
    """The help page is the golden one, by either flag."""
    page = shoal("--help")
    if request.config.getoption("--update", default=False):
        HELP.write_text(page.output, encoding="utf-8")
    assert (page.exit_code, page.output) == (0, HELP.read_text(encoding="utf-8"))
    assert shoal("-h").output == page.output


def test_help_of_the_program() -> None:
    """`python -m shoal --help` ends with 0, names every verb and loads neither Ray nor vLLM's libraries."""
    done = program("--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert [verb for verb in VERBS if f"\n  {verb} " not in done.stdout] == []
    assert loaded & {"ray", "vllm", "torch", "aiohttp", "rich", "pydantic", "starlette"} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(shoal: Shoal, verb: str) -> None:
    """Every verb has a help page."""
    page = shoal(verb, "--help")
    assert page.exit_code == 0
    assert page.output.startswith(f"Usage: shoal {verb} ")


def test_version(shoal: Shoal) -> None:
    """The version is that of the package."""
    assert shoal("--version").output == f"shoal {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"), [("stauts", '"status"'), ("Down", '"down"'), ("lgos", '"logs"'), ("zzz", "known: agent, ask")]
)
def test_unknown_verb(shoal: Shoal, word: str, hint: str) -> None:
    """An unknown verb is refused with the nearest one, exit code 2."""
    result = shoal(word)
    assert result.exit_code == 2
    assert f'no verb "{word}"' in result.stderr
    assert hint in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up",), NO_FILE),
        (("up", "--local", "--nodes", "0"), "error: --nodes 0: expected 1 to 16\nfix: shoal up --local --nodes 2\n"),
        (("up", "--local", "--nodes", "17"), "error: --nodes 17: expected 1 to 16\nfix: shoal up --local --nodes 2\n"),
        (
            ("up", "--local", "--model", "smolm2"),
            UNKNOWN_MODEL,
        ),
    ],
)
def test_wrong_calls(shoal: Shoal, words: tuple[str, ...], said: str) -> None:
    """A wrong call is refused with exit code 2, and nothing is made on disk."""
    result = shoal(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", said)
    assert not shoal.state.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("up", "--local", "--nodes", "two"),
        ("up", "--nosuch"),
        ("up", "--local", "--models", "/absent.yaml"),
        ("ask",),
        ("ask", "a", "b"),
        ("completion", "tcsh"),
        ("agent", "now"),
        ("--nosuch",),
    ],
)
def test_more_wrong_calls(shoal: Shoal, words: tuple[str, ...]) -> None:
    """Words that do not fit are refused with exit code 2 and a sentence on standard error."""
    result = shoal(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_status_when_down(shoal: Shoal) -> None:
    """Where nothing is up, `status` says so and how to change it, with exit code 4."""
    result = shoal("status")
    assert (result.exit_code, result.output) == (
        4,
        "cluster local: down\n  nothing is up; bring it up with: shoal up --local\n",
    )


def test_status_as_json_when_down(shoal: Shoal) -> None:
    """`status --json` gives a whole document also where nothing is up."""
    result = shoal("status", "--json")
    assert result.exit_code == 4
    assert ClusterStatus.model_validate_json(result.stdout) == ClusterStatus(cluster="local", state=ClusterState.DOWN)


@pytest.mark.parametrize("words", [("ask", "Hello?"), ("ask", "--stream", "Hello?")])
def test_ask_when_down(shoal: Shoal, words: tuple[str, ...]) -> None:
    """`ask` where nothing is up ends with exit code 4 and the command that helps."""
    result = shoal(*words)
    assert (result.exit_code, result.output) == (4, "error: no cluster is up\nfix: shoal up --local\n")


def test_down_when_down(shoal: Shoal) -> None:
    """`down` where nothing is up is no error."""
    result = shoal("down")
    assert (result.exit_code, result.output) == (0, "nothing was up\n")


def test_logs_when_down(shoal: Shoal) -> None:
    """`logs` where nothing was up yet ends with exit code 4."""
    result = shoal("logs")
    said = "error: there are no logs: no cluster was up here yet\nfix: shoal up --local\n"
    assert (result.exit_code, result.output) == (4, said)


def test_logs(shoal: Shoal) -> None:
    """`logs` puts the speaker before each line; of one speaker it gives the lines alone."""
    logs = shoal.state / "local" / "logs"
    logs.mkdir(parents=True)
    (logs / "head.ray.log").write_text("chatter\n")
    assert (shoal("logs").exit_code, shoal("logs").output) == (0, "")
    (logs / "head.log").write_text("one\ntwo\n")
    (logs / "worker-1.log").write_text("three\n")
    assert shoal("logs").output == "head     | one\nhead     | two\nworker-1 | three\n"
    assert shoal("logs", "head.ray").output == "chatter\n"
    assert shoal("logs", "haed").exit_code == 2


@pytest.mark.parametrize("words", [("status",), ("ask", "x"), ("down",), ("logs",), ("up", "--local")])
def test_state_folder_below_a_file(shoal: Shoal, tmp_path: Path, words: tuple[str, ...]) -> None:
    """A state folder that cannot exist is no traceback; `up` names it and starts nothing."""
    file = tmp_path / "file"
    file.write_text("")
    result = shoal(*words, SHOAL_STATE_DIR=f"{file}/state")
    codes = {"status": 4, "ask": 4, "down": 0, "logs": 4, "up": 5}
    assert result.exit_code == codes[words[0]]
    if words[0] == "up":
        assert result.stderr == (
            f"error: cannot write to the state folder {file}/state/local\n"
            f"why: [Errno 20] Not a directory: '{file}/state/local'\n"
            "fix: make it writable, or choose another folder with SHOAL_STATE_DIR\n"
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": 5}'])
@pytest.mark.parametrize("words", [("status",), ("ask", "x"), ("down",)])
def test_a_damaged_record(shoal: Shoal, words: tuple[str, ...], content: str) -> None:
    """A record that cannot be read is named, with exit code 1."""
    folder = shoal.state / "local"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(content)
    result = shoal(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot read {folder / 'run.json'}: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shoal: Shoal, shell: str) -> None:
    """Each shell has a completion script that calls shoal."""
    result = shoal("completion", shell)
    assert result.exit_code == 0
    assert f"_SHOAL_COMPLETE={shell}_complete" in result.stdout


def completed(monkeypatch: pytest.MonkeyPatch, line: str, word: int) -> list[str]:
    """What bash is offered for that word of the line."""
    monkeypatch.setattr(sys, "argv", ["shoal"])
    env = {"_SHOAL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    result: Any = CliRunner().invoke(main, [], prog_name="shoal", env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return [item.removeprefix("plain,") for item in result.output.splitlines()]


def test_completion_of_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs are completed from their beginning."""
    assert completed(monkeypatch, "shoal ", 1) == list(VERBS)
    assert completed(monkeypatch, "shoal st", 1) == ["status"]


def test_completion_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb's own options are completed, and so are the words it knows."""
    assert completed(monkeypatch, "shoal up --no", 2) == ["--nodes"]
    assert completed(monkeypatch, "shoal status --", 2) == ["--file", "--json", "--watch", "--every", "--help"]
    assert completed(monkeypatch, "shoal completion ", 2) == ["bash", "zsh", "fish"]
    assert completed(monkeypatch, "shoal --ver", 1) == ["--version"]


def test_completion_of_an_unknown_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an unknown verb the completion is no traceback."""
    assert isinstance(completed(monkeypatch, "shoal nosuch --", 2), list)


def test_agent_without_settings() -> None:
    """`shoal agent` and `shoal serve` without their settings end with 78 and name what is missing."""
    for word, name in (("agent", "RAY_MODE"), ("serve", "VLLM_HOST_IP")):
        done = program(word, SHOAL_RUN_ID="x")
        assert done.returncode == 78
        assert f"{name} is not set" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr


def test_a_relative_state_folder() -> None:
    """A relative state folder means the same in every process, wherever it works."""
    assert local.cluster_dir({"SHOAL_STATE_DIR": "here"}) == Path.cwd() / "here" / "local"
