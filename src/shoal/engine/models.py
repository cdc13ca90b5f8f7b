"""From a registry entry to what vLLM is given: a folder on this machine, or a name on the hub."""

import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shoal.errors import ConfigError, PreconditionFailed
from shoal.facts.model_folder import inspect
from shoal.facts.versions import installed
from shoal.host.base import Result
from shoal.host.local import LocalHost
from shoal.spec.registry import ModelEntry

PACKAGE = re.compile(r"package:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(\S+)", re.ASCII)
CONVERT_DEADLINE = 900.0  # seconds; SmolLM2 135M takes 26 on two cores
FORMAT = 1  # raise it when the converter writes something else, and everything is converted anew
GROWTH = 4  # 4-bit weights become 16-bit ones; few files are packed tighter


@dataclass(frozen=True)
class _Carried:
    """A model file that a Python package carries; ``size`` in bytes."""

    key: str
    module: str
    name: str
    version: str
    size: int

    def folder(self, cache: Path) -> Path:
        """Where its converted form belongs; another version or file gets another folder."""
        identity = "\n".join((str(FORMAT), self.module, self.name, self.version, str(self.size)))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", self.key).strip(".-")
        return cache / "models" / f"{readable or 'model'}-{digest}"


def resolve(entry: ModelEntry, cache: Path, host: LocalHost, report: Callable[[str], None], python: str) -> Path | str:
    """What vLLM gets as its model; a model that a package carries is converted on first use.

    Args:
        entry: the registry's entry.
        cache: folder for converted models.
        host: runs the converter.
        report: told each step of a conversion, as a sentence, in this thread.
        python: the interpreter that has the package, transformers and shoal.

    Raises:
        ConfigError: the entry's ``package:`` reference is not of the form MODULE/FILE.
        PreconditionFailed: package or file not there, no room, cache not writable, or the conversion failed.
    """
    if entry.model.startswith("package:"):
        return _carried_folder(_locate(entry), cache, host, report, python)
    return _folder_or_name(entry)


def _folder_or_name(entry: ModelEntry) -> Path | str:
    asked = entry.origin in {"--model", "MODEL_NAME"}
    fix = "give the path of a folder that exists" if asked else f"correct `model` of {entry.key} in {entry.origin}"
    try:
        path = Path(entry.model).expanduser()
        if path.is_dir():
            # vLLM runs in another folder than the caller.
            return path.resolve()
        absent = not path.exists()
    except (OSError, RuntimeError) as error:
        raise PreconditionFailed(f"model {entry.key}: cannot look at {entry.model}", why=str(error), fix=fix) from error
    # vLLM would take it for a name on the hub, and say something about repository names.
    if absent and entry.model.startswith(("/", "./", "../", "~")):
        raise PreconditionFailed(f"model {entry.key}: there is no folder {entry.model}", fix=fix)
    return entry.model


def _locate(entry: ModelEntry) -> _Carried:
    match = PACKAGE.fullmatch(entry.model)
    if match is None or ".." in Path(match[2]).parts or match[2].startswith("/"):
        raise ConfigError(
            f"model {entry.key}: {entry.model!r} names no file in a package",
            why="expected package:MODULE/FILE.gguf",
            fix=f"correct {entry.origin}",
        )
    module, name = match.groups()
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # the module around it is not there, or Python knows no more than its name
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise PreconditionFailed(
            f"model {entry.key}: the Python package {module} that carries it is not installed", fix="make engine"
        )
    file = Path(folders[0], name)
    if not file.is_file():
        raise PreconditionFailed(
            f"model {entry.key}: the Python package {module} has no file {name}",
            why=f"looked in {folders[0]}",
            fix="make engine",
        )
    return _Carried(entry.key, module, name, installed(module) or "", file.stat().st_size)


def _carried_folder(model: _Carried, cache: Path, host: LocalHost, report: Callable[[str], None], python: str) -> Path:
    target = model.folder(cache)
    if not target.is_dir():
        _make_room(target.parent, GROWTH * model.size)
        _convert(model, target, host, report, python)
    problems = inspect(target).problems
    if problems:
        raise PreconditionFailed(
            f"model {model.key}: its converted form is damaged", why=problems[0], fix=f"rm -r {target}"
        )
    return target


def _make_room(folder: Path, need: int) -> None:
    """Make the folder; PreconditionFailed where it cannot take ``need`` bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _not_writable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _not_writable(folder, PermissionError("no permission to write"))
    if free < need:
        raise _no_room(folder, f"{free / 1e9:.1f} GB are free, about {need / 1e9:.1f} GB are needed")


def _not_writable(folder: Path, error: OSError) -> PreconditionFailed:
    fix = "set SHOAL_CACHE_DIR to another folder"
    return PreconditionFailed(f"the cache folder {folder} cannot be written", why=str(error), fix=fix)


def _no_room(folder: Path, why: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"no room for the model in {folder}", why=why, fix="free some, or set SHOAL_CACHE_DIR to a larger disk"
    )


def _convert(model: _Carried, target: Path, host: LocalHost, report: Callable[[str], None], python: str) -> None:
    """Run the converter; it takes the lock, removes what killed runs left, and renames the folder at its end."""
    report(f"converting {model.key} for vLLM (once)")

    def told(line: str) -> None:
        report(f"converting {model.key}: {json.loads(line)['step']}")

    argv = [python, "-P", "-m", "shoal.vllm_cpu.convert", f"{model.module}/{model.name}", str(target)]
    result = host.stream(argv, timeout=CONVERT_DEADLINE, on_line=told)
    if result.code != 0 or not target.is_dir():
        why = _why(result)
        if "No space left" in why:
            raise _no_room(target.parent, why)
        raise PreconditionFailed(
            f"model {model.key}: the conversion of {model.name} failed", why=why, fix="make engine"
        )


def _why(result: Result) -> str:
    if (number := result.code - 128) > 0:
        memory = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
        return f"signal {number} ended it{memory}"
    lines = result.err.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {result.code} and said nothing"
