"""From a registry entry to a folder: converted once, never half, and every failure in words.

The converter runs as the real child process; a stand-in for transformers, first on its path, keeps it quick.
"""

import errno
import fcntl
import shutil
import sys
import threading
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import ConfigError, PreconditionFailed, TimedOut
from shoal.host.base import Result
from shoal.host.local import LocalHost
from shoal.ops.models import resolve
from shoal.spec.registry import ModelEntry

TRANSFORMERS = """
import json, os, pathlib, time, types
print("a library that talks on stdout")
HERE = pathlib.Path(__file__).parent

class _Part:
    hf_quantizer = is_quantized = quantization_method = 1
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
        time.sleep(0.5 if (HERE / "slow").exists() else 0)
        (folder / "config.json").write_text(json.dumps({"architectures": ["X"]}))
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "model.safetensors").chmod(0o600)
"""


class CountingHost(LocalHost):
    """This machine, remembering what was run."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,)) -> Result:
        self.ran.append(tuple(argv))
        return super().run(argv, timeout=timeout, ok=ok)

    @property
    def conversions(self) -> int:
        return sum(argv[0] == "sh" for argv in self.ran)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Python packages: `tinymodel` with a GGUF, and the stand-in for transformers."""
    site = tmp_path / "site"
    (site / "tinymodel").mkdir(parents=True)
    (site / "tinymodel" / "__init__.py").write_text("raise SystemExit('a model package is looked at, not imported')")
    (site / "tinymodel" / "tiny.gguf").write_bytes(b"GGUF and so on")
    (site / "tinymodel" / "text.gguf").write_bytes(b"no such thing")
    (site / "transformers.py").write_text(TRANSFORMERS)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entry(model: str = "package:tinymodel/tiny.gguf", key: str = "tiny") -> ModelEntry:
    return ModelEntry(key, model, origin="models.yaml")


def get(cache: Path, model: ModelEntry | None = None, host: LocalHost | None = None) -> Path | str:
    return resolve(model or entry(), cache, host or LocalHost(), lambda _: None, sys.executable)


def models(cache: Path) -> list[str]:
    """What lies in the cache, without the locks."""
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


@pytest.mark.usefixtures("site")
def test_a_packaged_model_is_converted_on_first_use_only(cache: Path) -> None:
    """The second call finds the folder and runs no converter; nothing else stays in the cache."""
    host = CountingHost()
    first = get(cache, host=host)
    assert isinstance(first, Path)
    assert get(cache, host=host) == first
    assert host.conversions == 1
    assert models(cache) == [first.name]
    assert first.name.startswith("tiny-")
    assert sorted((path.name, path.stat().st_mode & 0o777) for path in first.iterdir()) == [
        ("config.json", 0o644),
        ("model.safetensors", 0o644),
        ("tokenizer.json", 0o644),
    ]


@pytest.mark.usefixtures("site")
def test_the_steps_of_a_conversion_are_reported_in_order(cache: Path) -> None:
    """As sentences, in the caller's thread."""
    told: list[tuple[str, threading.Thread]] = []
    resolve(entry(), cache, LocalHost(), lambda text: told.append((text, threading.current_thread())), sys.executable)
    assert [text for text, _ in told] == [
        "converting tiny for vLLM (once)",
        "converting tiny: loading the converter",
        "converting tiny: reading the tokenizer",
        "converting tiny: reading the weights",
        "converting tiny: writing the folder",
        "converting tiny: done",
    ]
    assert {thread for _, thread in told} == {threading.current_thread()}


def test_two_at_once_convert_once(site: Path, cache: Path) -> None:
    """The second process waits for the first, and takes its folder."""
    (site / "slow").touch()
    found: list[Path | str] = []
    threads = [threading.Thread(target=lambda: found.append(get(cache))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert (site / "conversions").read_text() == "one\n"


@pytest.mark.usefixtures("site")
def test_who_waits_for_another_process_is_told(cache: Path) -> None:
    """The lock is a file beside the folder, and ends with the process that holds it."""
    target = get(cache)
    assert isinstance(target, Path)
    shutil.rmtree(target)
    lock = (cache / "models" / f".{target.name}.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    told: list[str] = []

    def report(text: str) -> None:
        told.append(text)
        if "waiting" in text:
            lock.close()

    assert resolve(entry(), cache, LocalHost(), report, sys.executable) == target
    assert told[1] == "converting tiny: waiting for another process that converts it"


@pytest.mark.usefixtures("site")
def test_what_a_killed_run_left_is_removed(cache: Path) -> None:
    """A half-written folder has another name than a model, and goes at the next conversion."""
    target = get(cache)
    assert isinstance(target, Path)
    target.rename(target.with_name(f".{target.name}.part"))
    (target.with_name(f".{target.name}.part") / "half").touch()
    assert get(cache) == target
    assert not (target / "half").exists()
    assert models(cache) == [target.name]


def test_another_file_in_the_package_is_another_model(site: Path, cache: Path) -> None:
    """An upgraded package is converted anew."""
    first = get(cache)
    (site / "tinymodel" / "tiny.gguf").write_bytes(b"GGUF and something else")
    assert get(cache) != first


def test_the_version_of_the_package_counts(site: Path, cache: Path) -> None:
    """Also where the file has the same length."""
    first = get(cache)
    info = site / "tinymodel-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinymodel\nVersion: 2.0\n")
    assert get(cache) != first


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("key", ["org/model", "../../etc", "a b", "..", "ä"])
def test_no_key_leads_out_of_the_cache(cache: Path, key: str) -> None:
    """The folder's name is made of harmless characters."""
    found = get(cache, entry(key=key))
    assert isinstance(found, Path)
    assert found.parent == cache / "models"
    assert found.is_dir()


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run for it, and ~ is the home folder."""
    host = CountingHost()
    assert get(tmp_path, entry(str(tmp_path)), host) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get(tmp_path, entry("~"), host) == tmp_path
    assert host.ran == []


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "gpt2", "s3://bucket/model", ""])
def test_a_hub_name_is_unchanged(tmp_path: Path, name: str) -> None:
    """vLLM knows what to do with it."""
    assert get(tmp_path, entry(name) if name else entry("org/name")) == (name or "org/name")


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./gone", "../gone/too", "~/no-such-folder-here", "~nobody-of-this-name/x"]
)
def test_a_path_that_is_not_there_is_no_hub_name(tmp_path: Path, path: str) -> None:
    """The error names the path, instead of the hub's rules for names."""
    with pytest.raises(PreconditionFailed) as error:
        get(tmp_path, entry(path))
    assert path in error.value.what
    assert error.value.fix == "correct `model` of tiny in models.yaml"


@pytest.mark.parametrize(
    "model",
    ["package:", "package:tinymodel", "package:tinymodel/", "package:/x.gguf", "package:tinymodel/../x.gguf",
     "package:tinymodel//etc/passwd", "package:../x/y.gguf", "package:-c/x.gguf", "package:tiny model/x.gguf"],
)  # fmt: skip
def test_a_package_reference_that_is_none_is_refused_before_anything_runs(tmp_path: Path, model: str) -> None:
    """No path leads out of the package."""
    host = CountingHost()
    with pytest.raises(ConfigError, match="names no file in a package"):
        get(tmp_path, entry(model), host)
    assert host.ran == []


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("module", ["nosuchmodule", "nosuchmodule.inner", "transformers"])
def test_a_package_that_is_not_installed_is_told(cache: Path, module: str) -> None:
    """So is a module that is no package, and can carry no file."""
    with pytest.raises(
        PreconditionFailed, match=f"the Python package {module} that carries it is not installed"
    ) as error:
        get(cache, entry(f"package:{module}/x.gguf"))
    assert error.value.fix == "make engine"
    assert not cache.exists()


@pytest.mark.usefixtures("site")
def test_a_file_that_the_package_lacks_is_told(cache: Path) -> None:
    """With package and file by name."""
    with pytest.raises(PreconditionFailed, match=r"the Python package tinymodel has no file gone\.gguf"):
        get(cache, entry("package:tinymodel/gone.gguf"))


@pytest.mark.usefixtures("site")
def test_a_file_that_is_no_gguf_is_told(cache: Path) -> None:
    """Before transformers is loaded."""
    with pytest.raises(PreconditionFailed, match="failed") as error:
        get(cache, entry("package:tinymodel/text.gguf"))
    assert error.value.why.endswith("text.gguf is not a GGUF file")


def test_a_failed_conversion_gives_its_last_line_and_leaves_nothing(site: Path, cache: Path) -> None:
    """The next run starts from nothing, and works."""
    (site / "fail").write_text("unknown architecture\nhydra")
    with pytest.raises(PreconditionFailed, match="failed") as error:
        get(cache)
    assert error.value.why == "RuntimeError: unknown architecture hydra"
    assert models(cache) == []
    (site / "fail").unlink()
    assert isinstance(get(cache), Path)


def test_a_disk_that_fills_up_is_told_as_such(site: Path, cache: Path) -> None:
    """The kernel's words mean no room, whoever meets them."""
    (site / "fail").write_text("[Errno 28] No space left on device")
    with pytest.raises(PreconditionFailed, match="no room for the model"):
        get(cache)


@pytest.mark.usefixtures("site")
def test_a_full_disk_is_told_before_anything_is_converted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is free and what is needed."""
    usage = type("usage", (), {"free": 0})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    host = CountingHost()
    with pytest.raises(PreconditionFailed, match="no room") as error:
        get(cache, host=host)
    assert "0.0 GB are free" in error.value.why
    assert host.conversions == 0


@pytest.mark.usefixtures("site")
def test_a_cache_that_cannot_be_written_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its place, or a file system that refuses."""
    cache.touch()
    with pytest.raises(PreconditionFailed, match="cannot be written") as error:
        get(cache)
    assert "SHOAL_CACHE_DIR" in error.value.fix
    cache.unlink()

    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(PreconditionFailed, match="cannot be written"):
        get(cache)


@pytest.mark.usefixtures("site")
def test_a_folder_that_was_damaged_later_is_told_with_the_command_that_mends_it(cache: Path) -> None:
    """It is not served, and not silently removed either."""
    target = get(cache)
    assert isinstance(target, Path)
    (target / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(PreconditionFailed, match="damaged") as error:
        get(cache)
    assert error.value.fix == f"rm -r {target}"


class EndingHost(LocalHost):
    """This machine, on which the converter ends as told."""

    def __init__(self, ending: Result | TimedOut) -> None:
        self.ending = ending

    def run(self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,)) -> Result:
        if argv[0] != "sh":
            return super().run(argv, timeout=timeout, ok=ok)
        if isinstance(self.ending, TimedOut):
            raise self.ending
        return self.ending.require(ok, self.name)


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("ending", "why"),
    [
        (Result((), -9, "", "Loading: 50 %"), "signal 9 ended it, as the kernel does when memory runs out"),
        (Result((), -15, "", ""), "signal 15 ended it"),
        (Result((), 3, "", ""), "it ended with code 3 and said nothing"),
        (Result((), 0, "", ""), "it ended with code 0 and said nothing"),
    ],
)
def test_a_converter_that_ends_without_a_word_is_told(cache: Path, ending: Result, why: str) -> None:
    """A signal by number, and success without a folder is none."""
    with pytest.raises(PreconditionFailed) as error:
        get(cache, host=EndingHost(ending))
    assert error.value.why == why


@pytest.mark.usefixtures("site")
def test_a_converter_that_hangs_ends_at_its_deadline(cache: Path) -> None:
    """The error is the host's own, raised in the caller's thread."""
    with pytest.raises(TimedOut):
        get(cache, host=EndingHost(TimedOut("it did not end")))
    assert models(cache) == []
