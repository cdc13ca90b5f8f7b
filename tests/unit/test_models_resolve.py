"""From a registry entry to a folder: converted once, never half, and every failure in words.

The converter runs as the real child process where it matters; a stand-in for transformers keeps it quick.
"""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from shoal.engine.models import resolve
from shoal.errors import ConfigError, PreconditionFailed, TimedOut
from shoal.host.base import Result
from shoal.host.local import LocalHost
from shoal.spec.registry import ModelEntry

TRANSFORMERS = """
import json, os, pathlib, signal, time, types
print("a library that talks on stdout")
HERE = pathlib.Path(__file__).parent

class _Part:
    config = types.SimpleNamespace(quantization_config=1)
    @classmethod
    def from_pretrained(cls, folder, **how):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        if (HERE / "fail").exists():
            raise RuntimeError((HERE / "fail").read_text())
        return cls()

class AutoTokenizer(_Part):
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")

class AutoModelForCausalLM(_Part):
    def save_pretrained(self, folder):
        with (HERE / "conversions").open("a") as log:
            log.write("one\\n")
        if (HERE / "die").exists():
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while (HERE / "hold").exists():
            time.sleep(0.01)
        (folder / "config.json").write_text(json.dumps({"architectures": ["X"]}))
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "model.safetensors").chmod(0o600)
"""


class QuickHost(LocalHost):
    """This machine, on which the converter makes its folder without a child; it counts how often."""

    def __init__(self) -> None:
        self.conversions = 0

    def stream(self, argv: Sequence[str], *, timeout: float, on_line: Callable[[str], None]) -> Result:
        self.conversions += 1
        target = Path(argv[-1])
        target.mkdir()
        (target / "config.json").write_text(json.dumps({"architectures": ["X"]}))
        (target / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (target / "tokenizer.json").write_text("{}")
        return Result(tuple(argv), 0, "", "")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Python packages, for us and for the converter: `tinymodel`, and the stand-in for transformers."""
    site = tmp_path / "site"
    (site / "tinymodel").mkdir(parents=True)
    (site / "tinymodel" / "__init__.py").write_text("raise SystemExit('a model package is looked at, not imported')")
    (site / "tinymodel" / "tiny.gguf").write_bytes(b"GGUF and so on")
    (site / "tinymodel" / "text.gguf").write_bytes(b"no such thing")
    (site / "transformers.py").write_text(TRANSFORMERS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    importlib.invalidate_caches()
    return site


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entry(model: str = "package:tinymodel/tiny.gguf", key: str = "tiny") -> ModelEntry:
    return ModelEntry(key, model, origin="models.yaml")


def get(
    cache: Path, model: ModelEntry | None = None, host: LocalHost | None = None, python: str = sys.executable
) -> Path:
    """What resolve makes of the entry, where that is a folder."""
    found = resolve(model or entry(), cache, host or LocalHost(), lambda _: None, python)
    assert isinstance(found, Path)
    return found


def program(folder: Path, text: str) -> str:
    """A shell script that stands in for the interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def models(cache: Path) -> list[str]:
    """What lies in the cache, without the locks."""
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


def test_a_packaged_model_is_converted_on_first_use_only(site: Path, cache: Path) -> None:
    """The second call finds the folder and runs no converter; nothing else stays in the cache."""
    first = get(cache)
    assert get(cache, python="/no/such/python") == first
    assert (site / "conversions").read_text() == "one\n"
    assert models(cache) == [first.name]
    assert first.name.startswith("tiny-")
    assert sorted((path.name, path.stat().st_mode & 0o777) for path in first.iterdir()) == [
        ("config.json", 0o644),
        ("model.safetensors", 0o644),
        ("tokenizer.json", 0o644),
    ]


@pytest.mark.usefixtures("site")
def test_the_steps_of_a_conversion_are_reported_in_order(cache: Path) -> None:
    """Each step is told as a sentence, and what libraries print on stdout is not among them."""
    told: list[str] = []
    resolve(entry(), cache, LocalHost(), told.append, sys.executable)
    assert told == [
        "converting tiny for vLLM (once)",
        "converting tiny: loading the converter",
        "converting tiny: reading the tokenizer",
        "converting tiny: reading the weights",
        "converting tiny: writing the folder",
        "converting tiny: done",
    ]


def test_two_at_once_convert_once(site: Path, cache: Path) -> None:
    """The second is told that it waits for the first, which ends only after that, and takes the first one's folder."""
    hold = site / "hold"
    hold.touch()
    told: list[str] = []

    def report(text: str) -> None:
        told.append(text)
        if "waiting for another process" in text:
            hold.unlink()

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(resolve, entry(), cache, LocalHost(), report, sys.executable) for _ in range(2)]
        found = {run.result(timeout=30) for run in runs}
    assert len(found) == 1
    assert told.count("converting tiny: done") == 2
    assert (site / "conversions").read_text() == "one\n"


def test_what_a_killed_run_left_is_removed(site: Path, cache: Path) -> None:
    """The half-written folder has another name than the model, and goes at the next conversion."""
    (site / "die").touch()
    with pytest.raises(PreconditionFailed) as error:
        get(cache)
    assert error.value.why == "signal 9 ended it, as the kernel does when memory runs out"
    [left] = models(cache)
    assert (cache / "models" / left / "half").exists()
    (site / "die").unlink()
    target = get(cache)
    assert not (target / "half").exists()
    assert models(cache) == [target.name] != [left]


def test_another_version_or_file_of_the_package_is_another_folder(site: Path, cache: Path) -> None:
    """A file of another length counts, and so does another version of a file of the same length."""
    first = get(cache, host=QuickHost())
    (site / "tinymodel" / "tiny.gguf").write_bytes(b"GGUF and something else")
    second = get(cache, host=QuickHost())
    info = site / "tinymodel-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinymodel\nVersion: 2.0\n")
    importlib.invalidate_caches()
    third = get(cache, host=QuickHost())
    assert len({first, second, third}) == 3


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("key", ["../../etc", "..", "ä"])
def test_no_key_leads_out_of_the_cache(cache: Path, key: str) -> None:
    """The folder lies in the cache, and its name is made of harmless characters."""
    found = get(cache, entry(key=key), QuickHost())
    assert found.parent == cache / "models"
    assert found.resolve() == found
    assert found.name.isascii()


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is converted for it, and ~ is the home folder."""
    host = QuickHost()
    assert get(tmp_path, entry(str(tmp_path)), host) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get(tmp_path, entry("~"), host) == tmp_path
    assert host.conversions == 0


def test_a_name_that_is_no_path_is_unchanged(tmp_path: Path) -> None:
    """It is handed on as it was written."""
    name = "Qwen/Qwen3-0.6B"
    assert resolve(entry(name), tmp_path, QuickHost(), lambda _: None, sys.executable) == name


@pytest.mark.parametrize("path", ["/no/such/folder", "~nobody-of-this-name/x"])
def test_a_path_that_is_not_there_is_no_hub_name(tmp_path: Path, path: str) -> None:
    """The error names the path and the entry to correct."""
    with pytest.raises(PreconditionFailed) as error:
        get(tmp_path, entry(path))
    assert path in error.value.what
    assert error.value.fix == "correct `model` of tiny in models.yaml"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("file", ["tinymodel", "tinymodel/../x.gguf", "tinymodel//etc/passwd"])
def test_a_package_reference_that_is_none_is_refused(cache: Path, file: str) -> None:
    """It has a module and a file, and no path leads out of the package."""
    with pytest.raises(ConfigError, match="names no file in a package"):
        get(cache, entry(f"package:{file}"))
    assert not cache.exists()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("module", ["nosuchmodule.inner", "email.gone.inner", "transformers", "__main__"])
def test_a_package_that_is_not_installed_is_told(cache: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a module that is no package and can carry no file, also where Python knows no more than its name."""
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    sentence = f"the Python package {module} that carries it is not installed"
    with pytest.raises(PreconditionFailed, match=sentence) as error:
        get(cache, entry(f"package:{module}/x.gguf"))
    assert error.value.fix == "make engine"
    assert not cache.exists()


@pytest.mark.usefixtures("site")
def test_a_file_that_the_package_lacks_is_told(cache: Path) -> None:
    """The error has package and file by name, and the folder that was looked in."""
    with pytest.raises(PreconditionFailed, match=r"the Python package tinymodel has no file gone\.gguf") as error:
        get(cache, entry("package:tinymodel/gone.gguf"))
    assert error.value.why.endswith("/site/tinymodel")


def test_a_failed_conversion_gives_its_last_line_and_leaves_nothing(site: Path, cache: Path) -> None:
    """A sentence of several lines comes as one; the next run starts from nothing, and works."""
    (site / "fail").write_text("unknown architecture\nhydra")
    with pytest.raises(PreconditionFailed, match=r"the conversion of tiny\.gguf failed") as error:
        get(cache)
    assert error.value.why == "RuntimeError: unknown architecture hydra"
    assert models(cache) == []
    (site / "fail").unlink()
    assert get(cache).is_dir()


@pytest.mark.usefixtures("site")
def test_a_file_that_is_no_gguf_is_told(cache: Path) -> None:
    """The error has the file's path."""
    with pytest.raises(PreconditionFailed, match="failed") as error:
        get(cache, entry("package:tinymodel/text.gguf"))
    assert error.value.why.endswith("/site/tinymodel/text.gguf is not a GGUF file")


def test_a_full_disk_is_told_before_anything_is_converted(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the file's size must be free, and the error tells what is free and what is needed."""
    os.truncate(site / "tinymodel" / "tiny.gguf", 500_000_000)  # a hole: it takes no room
    free = 1_999_999_999
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    host = QuickHost()
    with pytest.raises(PreconditionFailed, match="no room for the model") as error:
        get(cache, host=host)
    assert error.value.why == "2.0 GB are free, about 2.0 GB are needed"
    assert host.conversions == 0
    free += 1
    assert get(cache, host=host).is_dir()


def test_a_disk_that_fills_up_during_the_conversion_is_told_as_such(site: Path, cache: Path) -> None:
    """The kernel's words on the converter's last line mean no room."""
    (site / "fail").write_text("[Errno 28] No space left on device")
    with pytest.raises(PreconditionFailed, match="no room for the model"):
        get(cache)


@pytest.mark.usefixtures("site")
def test_a_cache_that_cannot_be_written_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its place and a folder without permission both end in advice to use another folder."""
    cache.touch()
    with pytest.raises(PreconditionFailed, match="cannot be written"):
        get(cache)
    cache.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PreconditionFailed, match="cannot be written") as error:
        get(cache)
    assert error.value.fix == "set SHOAL_CACHE_DIR to another folder"


@pytest.mark.usefixtures("site")
def test_a_folder_that_was_damaged_later_is_told_with_the_command_that_mends_it(cache: Path) -> None:
    """It is not served, and not silently removed either."""
    target = get(cache, host=QuickHost())
    (target / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(PreconditionFailed, match="damaged") as error:
        get(cache)
    assert error.value.fix == f"rm -r {target}"
    assert target.is_dir()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -TERM $$", "signal 15 ended it"),
        ("exit 0", "it ended with code 0 and said nothing"),
    ],
)
def test_a_converter_that_ends_without_a_word_is_told(tmp_path: Path, cache: Path, script: str, why: str) -> None:
    """A signal is told by its number, and success without a folder is none."""
    with pytest.raises(PreconditionFailed) as error:
        get(cache, python=program(tmp_path, script))
    assert error.value.why == why


@pytest.mark.usefixtures("site")
def test_a_converter_that_hangs_ends_at_its_deadline(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the host's own, and there is no folder."""
    monkeypatch.setattr("shoal.engine.models.CONVERT_DEADLINE", 0.1)
    with pytest.raises(TimedOut):
        get(cache, python=program(tmp_path, "sleep 60"))
    assert models(cache) == []
