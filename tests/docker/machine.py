"""A machine of its own for Docker tests: namespaces of this one, with a Docker engine inside.

Network, mounts, host name, IPC and process ids are its own, so two of them share no port, no ``/tmp/ray`` and no
``/dev/shm``. All of it hangs on one process: when that ends, the kernel ends every process in it and takes its mounts
and links away, also where the test run was killed.
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE = "shoal-test:vllm-cpu"
WITHOUT_RAY = "shoal-test:without-ray"  # the same, but that nobody finds Ray in it
PLACE, PREFIX, SETTLED = "/var/tmp", "shoal-docker-", 600.0  # seconds until a folder without a lock is a dead one
VENV = Path(sys.prefix)
BASE = Path(sys.base_prefix)

# The machine: its own /tmp, /run and /dev/shm, then Docker's engine below a first process that reaps.
BOOT = """\
set -e
hostname "$1"; work=$2; shift 2
mount --make-rprivate /
mount --bind "$work/tmp" /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
exec docker-init -- dockerd "$@"
"""

# What NVIDIA's runtime does for the driver, this one does for the checkout's Python: it is mounted into every
# container, where a real image would hold 3 GB of it.
RUNTIME = """\
#!{python}
import json, os, sys
words = sys.argv[1:]
if "create" in words:
    flag = next(word for word in ("--bundle", "-b") if word in words)
    path = os.path.join(words[words.index(flag) + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    config["mounts"] += {mounts!r}
    if "SHOAL_TEST_WITHOUT_RAY=1" in config["process"]["env"]:
        config["mounts"] += {hidden!r}
    with open(path, "w") as file:
        json.dump(config, file)
os.execvp("runc", ["runc", *words])
"""


def until(what: Callable[[], Any], seconds: float, why: Callable[[], str]) -> Any:
    """The first true value of ``what`` within ``seconds``; else a failure that says ``why``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {why()}")


@dataclass(frozen=True)
class Machine:
    """A machine that runs, and the folder of all its files. ``pid`` is its first process, seen from here."""

    name: str
    address: str
    work: Path
    pid: int

    def run(self, *argv: str, cwd: Path | None = None, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a command on the machine, in one of its folders; the exit code is the caller's to judge."""
        inside = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid"]
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.work),
            "DOCKER_HOST": f"unix://{self.work}/docker.sock",
            "LANG": "C.UTF-8",
        }
        return subprocess.run(
            [*inside, f"--wd={cwd or self.work}", *argv],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def ok(self, *argv: str, cwd: Path | None = None, timeout: float = 120) -> str:
        """What a command prints that must succeed."""
        done = self.run(*argv, cwd=cwd, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def inspect(self, container: str) -> dict[str, Any]:
        """What Docker knows of a container; nothing where there is none."""
        done = self.run("docker", "inspect", container)
        return json.loads(done.stdout)[0] if done.returncode == 0 else {}

    def logs(self, container: str) -> str:
        """All that a container has said, over all its starts."""
        done = self.run("docker", "logs", container)
        return done.stdout + done.stderr

    def wait_log(self, container: str, words: str, seconds: float, since: int = 0) -> str:
        """The log beyond ``since`` characters, once ``words`` are in it."""
        until(
            lambda: words in self.logs(container)[since:],
            seconds,
            lambda: f"{words!r} in the log of {container}:\n{self.logs(container)[-4000:]}",
        )
        return self.logs(container)[since:]


def _mount(source: Path, at: Path, mode: str = "ro") -> dict[str, Any]:
    return {"destination": str(at), "type": "bind", "source": str(source), "options": ["rbind", mode]}


def _injected() -> list[dict[str, Any]]:
    """Mounts for every container: the system's programs and libraries, and this Python, with all that it has."""
    folders = (Path("/usr"), VENV, *(() if BASE.is_relative_to("/usr") else (BASE,)))
    # What Python compiles on the way is kept in the checkout, or every container would compile Ray anew.
    return [_mount(folder, folder, "rw" if folder == VENV else "ro") for folder in folders]


def _hidden(work: Path, package: str) -> list[dict[str, Any]]:
    """Mounts that take the metadata of a package away: for Python it is not installed then."""
    return [_mount(work / "empty", path) for path in VENV.glob(f"lib/python*/site-packages/{package}-*.dist-info")]


def _image() -> bytes:
    """A root folder in which nothing lies but the way to the mounts: a tar archive of a few kilobytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("dev", "etc", "opt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var/tmp", "var/lib"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            archive.addfile(entry)
        for path in (Path("/bin"), Path("/lib"), Path("/lib64")):
            if path.is_symlink():
                entry = tarfile.TarInfo(path.name)
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                archive.addfile(entry)
        for path in (Path("/etc/passwd"), Path("/etc/group"), Path("/etc/nsswitch.conf"), Path("/etc/ld.so.cache")):
            entry = tarfile.TarInfo(str(path)[1:])
            data = path.read_bytes()
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _first_process(unshare: int) -> int:
    """The one child of ``unshare``: the machine's first process."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    return int(until(lambda: children.read_text().split(), 10, lambda: "unshare made no child")[0])


def _prepare(work: Path) -> None:
    (work / "tmp").mkdir(mode=0o1777)
    (work / "tmp").chmod(0o1777)
    (work / "empty").mkdir()
    runtime = work / "runtime"
    # shoal is in no image: there it is shoal.pyz, and vLLM must find the platform plugin in that.
    mounts = [*_injected(), *_hidden(work, "shoal")]
    text = RUNTIME.format(python=sys.executable, mounts=mounts, hidden=_hidden(work, "ray"))
    runtime.write_text(text, encoding="utf-8")
    runtime.chmod(0o755)
    (work / "image.tar").write_bytes(_image())


def _dockerd(work: Path) -> list[str]:
    return [
        f"--host=unix://{work}/docker.sock", f"--data-root={work}/data", f"--exec-root={work}/exec",
        f"--pidfile={work}/docker.pid", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false",
        f"--add-runtime=checkout={work}/runtime", "--default-runtime=checkout", f"--cgroup-parent=/{work.name}",
    ]  # fmt: skip


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that is taken away at the end, with all of a machine in it.

    Not below pytest's folder: the path of a socket ends at 107 bytes, and /tmp is each machine's own. A folder whose
    test run was killed is known by a lock that nobody holds, and goes now.
    """
    for path in Path(PLACE).glob(f"{PREFIX}*"):
        if time.time() - path.stat().st_mtime > SETTLED and (left := _locked(path)) is not None:
            _remove(path)
            os.close(left)
    work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
    handle = _locked(work)
    try:
        yield work
    finally:
        _remove(work)
        if handle is not None:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextmanager
def machine(name: str, address: str, work: Path) -> Iterator[Machine]:
    """A machine with an engine that answers and has the image; at the end nothing of it is left."""
    _prepare(work)
    argv = [
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
        "sh", "-c", BOOT, "boot", name, str(work), *_dockerd(work),
    ]  # fmt: skip
    with (work / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    first = 0
    try:
        first = _first_process(process.pid)
        made = Machine(name, address, work, first)
        until(
            lambda: process.poll() is not None or made.run("docker", "version").returncode == 0,
            60,
            lambda: (work / "dockerd.log").read_text()[-3000:],
        )
        assert process.poll() is None, (work / "dockerd.log").read_text()[-3000:]
        _load(made, IMAGE)
        _load(made, WITHOUT_RAY, "SHOAL_TEST_WITHOUT_RAY=1")
        yield made
    finally:
        process.kill()  # its child goes with it, and with that one the whole machine
        process.wait(30)
        # A first process is gone only when all others of its machine are.
        until(lambda: not first or not Path(f"/proc/{first}").exists(), 30, lambda: f"{name} does not end")


def _load(made: Machine, tag: str, *env: str) -> None:
    path = f"PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    changes = [word for value in (path, "LANG=C.UTF-8", *env) for word in ("--change", f"ENV {value}")]
    made.ok("docker", "import", *changes, str(made.work / "image.tar"), tag)


def _remove(work: Path) -> None:
    """The folder, and the control groups of its name, which outlive their processes."""
    for folder in (*Path("/sys/fs/cgroup").glob(f"*/{work.name}"), Path("/sys/fs/cgroup", work.name)):
        for below, _, _ in os.walk(folder, topdown=False):
            until(lambda below=below: _rmdir(below), 10, lambda below=below: f"{below} is still in use")
    shutil.rmtree(work)


def _rmdir(folder: str) -> bool:
    with contextlib.suppress(OSError):
        Path(folder).rmdir()
    return not Path(folder).exists()


def join(one: Machine, other: Machine) -> None:
    """A cable between two machines, each end with its address."""
    ends = [["fab0", "netns", str(here.pid)] for here in (one, other)]
    subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True)
    for here in (one, other):
        here.ok("ip", "address", "add", f"{here.address}/24", "dev", "fab0")
        here.ok("ip", "link", "set", "fab0", "up")
