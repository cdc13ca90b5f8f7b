"""Where the run lives: its folders, its Python, and what it has found so far."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MARK = "GPU_RUN_PYTHON"  # set once the script runs under the Python that has the wheels


@dataclass
class Place:
    """Folders, and the results, which are written anew after each step: a run that is cut off leaves what it had."""

    work: Path
    out: Path
    rehearse: bool
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """Converted models and compile caches: they outlive a step."""
        return self.work / "cache"

    @property
    def models(self) -> Path:
        """The registry that the head reads."""
        return self.work / "models.yaml"

    def say(self, words: str) -> None:
        """A line of the run's story."""
        print(f"[{time.monotonic() - self.began:6.1f}] {words}", flush=True)

    def keep(self, step: str, document: dict[str, Any]) -> None:
        """Remember what a step found."""
        self.found[step] = {**self.found.get(step, {}), **document}
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.found, indent=1, ensure_ascii=False, default=str) + "\n"
        (self.out / "results.json").write_text(text, encoding="utf-8")

    def evidence(self, step: str, name: str, source: str | Path) -> None:
        """Keep a text, a file or a folder as evidence of a step."""
        target = self.work / "evidence" / step / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, str):
            target.write_text(source, encoding="utf-8")
        elif source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)

    def pack(self) -> None:
        """Write all evidence into one archive."""
        folder = self.work / "evidence"
        if folder.is_dir():
            with tarfile.open(self.out / "evidence.tar.gz", "w:gz") as archive:
                archive.add(folder, "evidence")


def unpack(wheel: Path, site: Path) -> str:
    """Unpack a wheel as `pip install --target` does, without its console scripts."""
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            parts = PurePosixPath(item.filename).parts
            if parts[0].endswith(".data"):
                parts = parts[2:] if parts[1] in {"purelib", "platlib"} else ()
            if item.is_dir() or not parts:
                continue
            target = site.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(item) as content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            if item.external_attr >> 16 & 0o111:
                target.chmod(0o755)
    return wheel.name


def make_python(work: Path, wheels: Path | None) -> Path:
    """An environment that has the wheels, then all of this Python's packages, then shoal; its interpreter.

    Nothing is written into this Python itself. Without wheels they are taken for unpacked in ``work/site`` already.
    """
    python, site = work / "env" / "bin" / "python3", work / "site"
    if python.exists():
        return python
    site.mkdir(parents=True, exist_ok=True)
    if wheels is not None:
        with ProcessPoolExecutor() as pool:
            for name in pool.map(unpack, sorted(wheels.glob("*.whl")), [site] * 10_000):
                print(f"unpacked {name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(work / "env")], check=True, timeout=60)
    own = next(path for path in sys.path if path.endswith("site-packages"))
    folder = next((work / "env" / "lib").glob("python*/site-packages"))
    lines = [str(site), f"import site; site.addsitedir({own!r})", str(ROOT / "src")]
    (folder / "gpu.pth").write_text("\n".join(lines) + "\n")
    return python


def under(python: Path, argv: Sequence[str]) -> None:
    """Become the same script under that Python, with the lab's `ip` where the machine has none."""
    shim = "" if shutil.which("ip") else f"{HERE}:"
    own = {"PATH": f"{shim}{python.parent}:{os.environ['PATH']}", MARK: "1", "PYTHONUNBUFFERED": "1"}
    modules = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, **own, "PYTHONPATH": ":".join(filter(None, modules))}
    os.execve(python, [str(python), str(HERE / "run.py"), *argv], env)
