"""From a registry entry to what vLLM is given: a folder on this machine, or a name on the hub."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import ConfigError, PreconditionFailed
from shoal.facts.model_folder import inspect
from shoal.host.base import Result
from shoal.host.local import LocalHost
from shoal.spec.registry import ModelEntry

PACKAGE = re.compile(r"package:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(\S+)", re.ASCII)
CONVERT_DEADLINE = 900.0  # seconds; SmolLM2 135M takes 26 on two cores
FORMAT = 1  # raise it when the converter writes something else, and everything is converted anew
GROWTH = 4  # 4-bit weights become 16-bit ones; few files are packed tighter
ANY_CODE = range(-64, 256)  # negative where a signal ended it

# Asked of the engine's interpreter, which need not be ours. -P: a folder of that name where we stand is no package.
LOCATE = """\
import importlib.metadata, importlib.util, json, pathlib, sys
module, name = sys.argv[1:]
try:
    spec = importlib.util.find_spec(module)
except (ImportError, ValueError):
    spec = None
folders = list(spec.submodule_search_locations or ()) if spec else []
try:
    version = importlib.metadata.version(module)
except importlib.metadata.PackageNotFoundError:
    version = ""
file = pathlib.Path(folders[0], name) if folders else None
size = file.stat().st_size if file and file.is_file() else None
print(json.dumps({"folder": folders[0] if folders else None, "size": size, "version": version}))
"""


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
        return _carried_folder(_locate(entry, host, python), cache, host, report, python)
    return _folder_or_name(entry)


def _folder_or_name(entry: ModelEntry) -> Path | str:
    fix = f"correct `model` of {entry.key} in {entry.origin}"
    try:
        path = Path(entry.model).expanduser()
        if path.is_dir():
            return path
        absent = not path.exists()
    except (OSError, RuntimeError) as error:
        raise PreconditionFailed(f"model {entry.key}: cannot look at {entry.model}", why=str(error), fix=fix) from error
    # vLLM would take it for a name on the hub, and say something about repository names.
    if absent and entry.model.startswith(("/", "./", "../", "~")):
        raise PreconditionFailed(f"model {entry.key}: there is no folder {entry.model}", fix=fix)
    return entry.model


def _locate(entry: ModelEntry, host: LocalHost, python: str) -> _Carried:
    match = PACKAGE.fullmatch(entry.model)
    if match is None or ".." in Path(match[2]).parts or match[2].startswith("/"):
        raise ConfigError(
            f"model {entry.key}: {entry.model!r} names no file in a package",
            why="expected package:MODULE/FILE.gguf",
            fix=f"correct {entry.origin}",
        )
    module, name = match.groups()
    found: dict[str, Any] = json.loads(host.run([python, "-P", "-c", LOCATE, module, name], timeout=30).out)
    if found["folder"] is None:
        raise PreconditionFailed(
            f"model {entry.key}: the Python package {module} that carries it is not installed",
            why=f"{python} finds no {module}",
            fix="make engine",
        )
    if found["size"] is None:
        raise PreconditionFailed(
            f"model {entry.key}: the Python package {module} has no file {name}",
            why=f"{module} {found['version']} in {found['folder']} came without it".replace("  ", " "),
            fix="make engine",
        )
    return _Carried(entry.key, module, name, found["version"], found["size"])


def _carried_folder(model: _Carried, cache: Path, host: LocalHost, report: Callable[[str], None], python: str) -> Path:
    target = model.folder(cache)
    if not target.is_dir():
        with _progress_file(target.parent, model) as progress:
            _convert(model, target, host, report, python, progress)
    problems = inspect(target).problems
    if problems:
        raise PreconditionFailed(
            f"model {model.key}: its converted form is damaged", why=problems[0], fix=f"rm -r {target}"
        )
    return target


@contextmanager
def _progress_file(folder: Path, model: _Carried) -> Iterator[Path]:
    """A file beside the models for the converter's progress; errors where the folder cannot take the model."""
    need = GROWTH * model.size
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < need:
            raise _no_room(folder, f"{free / 1e9:.1f} GB are free, about {need / 1e9:.1f} GB are needed")
        handle, name = tempfile.mkstemp(dir=folder, prefix=".progress.")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(folder, str(error)) from error
        raise PreconditionFailed(
            f"the cache folder {folder} cannot be written", why=str(error), fix="set SHOAL_CACHE_DIR to another folder"
        ) from error
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _no_room(folder: Path, why: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"no room for the model in {folder}", why=why, fix="free some, or set SHOAL_CACHE_DIR to a larger disk"
    )


def _convert(
    model: _Carried, target: Path, host: LocalHost, report: Callable[[str], None], python: str, progress: Path
) -> None:
    """Run the converter; it takes the lock, removes what killed runs left, and renames the folder at its end."""
    report(f"converting {model.key} for vLLM (once)")
    converter = [python, "-P", "-m", "shoal.vllm_cpu.convert", f"{model.module}/{model.name}", str(target)]
    # A command's output comes at its end; through a file its steps can be told while it runs.
    argv = ["sh", "-c", 'exec >"$0" && rm -f "$0" && exec "$@"', str(progress), *converter]
    with progress.open(encoding="utf-8") as lines:
        running = _in_background(lambda: host.run(argv, timeout=CONVERT_DEADLINE, ok=ANY_CODE))
        ended = False
        while not ended:
            ended = bool(wait([running], timeout=0.2).done)
            for line in lines:
                report(f"converting {model.key}: {json.loads(line)['step']}")
    result = running.result()
    if result.code != 0 or not target.is_dir():
        why = _why(result)
        if "No space left" in why:
            raise _no_room(target.parent, why)
        raise PreconditionFailed(
            f"model {model.key}: the conversion of {model.name} failed", why=why, fix="make engine"
        )


def _in_background(call: Callable[[], Result]) -> Future[Result]:
    """Call in a thread that does not keep an interrupted program from ending."""
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001  # it is raised again by result(), in the caller's thread
            future.set_exception(error)

    threading.Thread(target=work, name="convert", daemon=True).start()
    return future


def _why(result: Result) -> str:
    if result.code < 0:
        memory = ", as the kernel does when memory runs out" if result.code == -signal.SIGKILL else ""
        return f"signal {-result.code} ended it{memory}"
    lines = result.err.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {result.code} and said nothing"
