"""`shoal.pyz`: the same bytes each time, run by each Python that is found, with what every vLLM image has."""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from shoal import __version__
from shoal.agent.selfpath import archive, importable
from shoal.ops import pyz

ROOT = Path(__file__).resolve().parents[2]
# What vLLM has required itself since 0.10.1, by distribution; what these bring comes with them.
BROUGHT = ("pydantic", "psutil", "prometheus-client", "starlette", "uvicorn", "pyyaml", "aiohttp")
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14")
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shoal.pyz in a folder of its own."""
    out = tmp_path_factory.mktemp("pyz") / "shoal.pyz"
    out.write_bytes(pyz.build())
    out.chmod(0o755)
    return out


def run(*argv: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """A program with nearly no environment: no PYTHONPATH above all."""
    clean = {"PATH": os.environ["PATH"]} | env
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=clean, timeout=60)


def interpreters() -> dict[str, str]:
    """Interpreters by the name they are called by: this one, those in PATH, those of a version manager."""
    managed = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3.*/bin/python3"))
    named = {str(path): str(path) for path in managed} | {name: name for name in NAMES}
    found = {"this": sys.executable}
    for name, program in named.items():
        try:
            said = run(program, "-c", VERSION)
        except OSError:
            continue
        # A version manager's stand-in is there for versions that are not.
        if said.returncode == 0 and tuple(map(int, said.stdout.strip().split("."))) >= (3, 11):
            found[name] = program
    return found


FOUND = interpreters()


def test_the_same_sources_give_the_same_bytes(file: Path) -> None:
    """Built twice, and built by the archive itself, it is the same byte for byte."""
    program = "import sys; from shoal.ops.pyz import build; sys.stdout.buffer.write(build())"
    again = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(file)}, capture_output=True, check=True
    )
    assert hashlib.sha256(pyz.build()).digest() == hashlib.sha256(file.read_bytes()).digest()
    assert again.stdout == file.read_bytes()


def test_what_is_inside(file: Path) -> None:
    """The package's sources and data, and vLLM's entry point: sorted, without times or leftovers."""
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as content:
        entries = content.infolist()
    names = [entry.filename for entry in entries]
    package = ROOT / "src/shoal"
    wanted = {f"shoal/{path.relative_to(package)}" for end in pyz.KEPT for path in package.rglob(f"*{end}")}
    own = {"__main__.py", *(f"shoal-{__version__}.dist-info/{name}" for name in ("METADATA", "entry_points.txt"))}
    assert names == sorted(wanted | own)
    assert {"shoal/spec/models.yaml", "shoal/py.typed"} <= set(names)
    assert {(entry.date_time, entry.external_attr >> 16, entry.compress_type) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), 0o100644, zipfile.ZIP_STORED)
    }
    assert file.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_nothing_of_the_package_is_left_out() -> None:
    """Every file below src/shoal has an ending that is kept."""
    files = {path for path in (ROOT / "src/shoal").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.name for path in files if not path.name.endswith(pyz.KEPT)} == set()


def test_vllm_finds_its_plugin_in_the_file(file: Path) -> None:
    """The entry point in the archive is the one in pyproject.toml; who has the archive on the path finds it."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.platform_plugins"]
    program = (
        "import json; from importlib.metadata import entry_points;"
        "print(json.dumps({e.name: e.value for e in entry_points(group='vllm.platform_plugins')}))"
    )
    found = json.loads(run(sys.executable, "-c", program, PYTHONPATH=str(file)).stdout)
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("name", FOUND)
def test_other_pythons_run_it(file: Path, name: str) -> None:
    """The version and the health check need the standard library of any Python from 3.11 on, and nothing else."""
    program = FOUND[name]
    isolated = (program, "-S", file)
    assert run(*isolated, "--version").stdout == f"shoal {__version__}\n"
    sick = run(*isolated, "health", "serve", VLLM_HOST_IP="127.0.0.1", SHOAL_SERVE_PORT="1")
    assert (sick.returncode, sick.stdout.partition(": [")[0]) == (1, "unhealthy: serve at 127.0.0.1:1")


def test_which_pythons_were_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are not on this machine are named in the output; that is no skip."""
    there = {"python" + run(program, "-c", VERSION).stdout.strip() for program in FOUND.values()}
    missing = sorted(set(NAMES) - there)
    with capsys.disabled():
        print(f"[shoal.pyz ran under {', '.join(sorted(there))}; not found: {', '.join(missing) or 'none'}]", end="")
    assert "this" in FOUND


def test_a_missing_package_is_named(file: Path) -> None:
    """Outside a vLLM image the agent says which package is missing, in two lines and not in a traceback."""
    done = run(sys.executable, "-S", file, "agent")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: shoal agent needs the Python package \w+, which .* does not have\nfix: .*\n", done.stderr
    )


@pytest.mark.parametrize(("program", "missing"), [("agent", "RAY_MODE"), ("serve", "VLLM_HOST_IP")])
def test_agent_and_supervisor_run_from_it(file: Path, program: str, missing: str) -> None:
    """With nothing set they say which variable is missing, and end with 78."""
    done = run(sys.executable, file, program, SHOAL_RUN_ID="x")
    assert (done.returncode, done.stderr) == (78, "")
    assert f"{missing} is not set" in done.stdout


def test_the_command_line_runs_from_it(file: Path) -> None:
    """Where click is installed all verbs are there, and the built-in models are read out of the archive."""
    program = "from shoal.spec.registry import builtin; print(*builtin())"
    assert "render" in run(sys.executable, file, "--help").stdout
    assert run(sys.executable, "-c", program, PYTHONPATH=str(file)).stdout == "smollm2\n"


def test_children_find_shoal(file: Path) -> None:
    """From the archive, the environment for children has it on PYTHONPATH, first and once."""
    program = (
        "import json, sys; from shoal.__main__ import _env; from shoal.agent.selfpath import archive;"
        "print(json.dumps([str(archive()), _env()['PYTHONPATH']]))"
    )
    found = json.loads(run(sys.executable, "-c", program, PYTHONPATH=f"{file}:/elsewhere").stdout)
    assert found == [str(file), f"{file}:/elsewhere"]
    child = run(sys.executable, "-m", "shoal.facts.ray_child", "--help", PYTHONPATH=str(file))
    assert (child.returncode, child.stdout.startswith("usage:")) == (0, True)


def test_the_path_for_children() -> None:
    """The archive is put before what is there; without an archive nothing changes."""
    zipped = Path("/opt/shoal/shoal.pyz")
    assert importable({}, zipped) == {"PYTHONPATH": "/opt/shoal/shoal.pyz"}
    assert importable({"PYTHONPATH": f"/a:{zipped}:/b"}, zipped) == {"PYTHONPATH": f"{zipped}:/a:/b"}
    assert importable({"A": "1"}, None) == {"A": "1"}
    assert archive() is None


def allowed() -> set[str]:
    """The distributions that may be loaded: the list, and what each requires without extras, transitively."""
    todo, out = list(BROUGHT), set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in out:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of other platforms
        out.add(name)
        wanted = (Requirement(text) for text in requires)
        todo += [item.name for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    return out


# Imports a module where nothing else is installed: what a requirement would like to have, if it is there, is no need.
CLOSURE = """
import importlib, json, sys
closed = set(json.loads(sys.argv[2]))
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in closed:
            raise ModuleNotFoundError(f"{name} is not brought by vLLM", name=name)
sys.meta_path.insert(0, Gate())
importlib.import_module(sys.argv[1])
"""


@pytest.fixture(scope="module")
def owners() -> dict[str, set[str]]:
    """By top-level module: the distributions that hold it."""
    found = importlib.metadata.packages_distributions()
    return {name: {re.sub(r"[-_.]+", "-", owner).lower() for owner in owned} for name, owned in found.items()}


def imported(module: str, file: Path, closed: list[str]) -> str:
    """What is said when a module of the archive is imported where the ``closed`` packages are not installed."""
    return run(sys.executable, "-c", CLOSURE, module, json.dumps(closed), PYTHONPATH=str(file)).stderr


@pytest.mark.parametrize(
    "module", ["shoal.agent.main", "shoal.engine.main", "shoal.facts.ray_child", "shoal.ui.verbs.firewall"]
)
def test_imports_need_only_what_vllm_brings(file: Path, owners: dict[str, set[str]], module: str) -> None:
    """What runs inside an image needs the standard library and vLLM's own requirements."""
    brought = allowed() | {"shoal"}
    closed = [name for name, owned in owners.items() if not owned & brought]
    assert {"click", "rich", "ray", "vllm"} - set(closed) == {"click"}  # click comes with uvicorn
    assert imported(module, file, closed) == ""


def test_the_guard_needs_the_standard_library_alone(file: Path, owners: dict[str, set[str]]) -> None:
    """The middleware inside vLLM's server needs no package at all."""
    closed = [name for name, owned in owners.items() if "shoal" not in owned]
    assert imported("shoal.engine.guard", file, closed) == ""


def test_a_foreign_import_would_be_noticed(file: Path) -> None:
    """The gate of these tests keeps a module from what it is closed for."""
    assert "psutil is not brought by vLLM" in imported("shoal.agent.main", file, ["psutil"])


def test_the_page_is_read_from_the_file(file: Path) -> None:
    """A browser gets the same files out of the archive as out of a folder."""
    program = "from shoal.agent.page.routes import assets; import json; print(json.dumps(sorted(assets())))"
    done = run(sys.executable, "-c", program, PYTHONPATH=str(file))
    folder = ROOT / "src/shoal/agent/page/assets"
    assert json.loads(done.stdout) == sorted(path.name for path in folder.iterdir())
