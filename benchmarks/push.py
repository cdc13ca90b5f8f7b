"""How fast a model comes to many hosts: `shoal push-model` beside plain rsync and scp, in turns, on one link.

    python -m benchmarks.push [--hosts 8] [--mib 192] [--mbit 400] [--rounds 3] [--out benchmarks/results/push.json]

The hosts are network namespaces of this machine with a real sshd each, so its cores do the work of all of them: *free*
is what they can do. *Shaped* gives every host, and this machine, a cable of ``--mbit`` in each direction, as in life a
cable is what ends first. rsync and scp are started for all hosts at once, as one would by hand; *one host* is the rate
of the link itself. Everything lies in memory on both sides. Needs root, rsync (apt install rsync) and tc.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ssh_hosts import NETDEV, SshHosts, ssh_hosts

from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.push.model import Wish, push_model
from shoal.spec.cluster import ClusterSpec, parse
from shoal.ui.push_view import Quiet

SUBNET = "192.168.142"
CLEAN = "rm -rf ~/.local/share/shoal ~/plain && mkdir -p ~/plain"
WAYS = ("shoal", "rsync", "scp")


def write_model(folder: Path, mib: int) -> None:
    """Four shards of random bytes, which nothing can compress, and what makes a folder a model."""
    for number in range(4):
        size = (mib << 20) // 4
        header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")


class Bench:
    """The hosts and the model."""

    def __init__(self, lab: SshHosts, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.env = {"SHOAL_CACHE_DIR": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1"}
        self.config = str(lab.config)
        self.kept = (
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60",
            "-o",
            f"ControlPath={lab.config.parent}/b-%C",
        )

    def spec(self, names: Sequence[str]) -> ClusterSpec:
        """A cluster file of some of the hosts."""
        rows = "".join(f"  - {{name: {name}, fabric: {self.lab.places[name][0]}}}\n" for name in names)
        return parse(f"cluster: bench\nhosts:\n{rows}", "bench.yaml")

    def clean(self, names: Sequence[str]) -> None:
        """Nothing of the model is on the hosts, no checksum is remembered here; every connection is open."""
        shutil.rmtree(self.env["SHOAL_CACHE_DIR"], ignore_errors=True)
        hosts = open_hosts(self.spec(names), config=self.config, sockets=str(self.lab.config.parent))
        for host in hosts.values():
            host.run(["sh", "-c", CLEAN], timeout=60)
        for name in names:
            subprocess.run(["ssh", "-F", self.config, *self.kept, name, "true"], check=True, timeout=60)

    def shoal(self, names: Sequence[str]) -> None:
        """As `shoal push-model` does it."""
        spec = self.spec(names)
        hosts = open_hosts(spec, config=self.config, sockets=str(self.lab.config.parent))
        outcome = push_model(Wish(spec, str(self.folder)), hosts, self.env, Quiet()).outcome
        if outcome.failed or len(outcome.done) != len(names):
            raise RuntimeError(str(outcome))

    def rsync(self, names: Sequence[str]) -> None:
        """One rsync for each host, all at once."""
        shell = " ".join(("ssh", "-F", self.config, *self.kept))
        self._all([["rsync", "-a", "-e", shell, f"{self.folder}/", f"{name}:plain/"] for name in names])

    def scp(self, names: Sequence[str]) -> None:
        """One scp for each host, all at once; by its own protocol, since these servers have no SFTP."""
        self._all(
            [
                ["scp", "-O", "-q", "-F", self.config, *self.kept, "-r", str(self.folder), f"{name}:plain/"]
                for name in names
            ]
        )

    def _all(self, commands: Sequence[Sequence[str]]) -> None:
        running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
        if any(process.wait(600) for process in running):
            raise RuntimeError(str(commands[0]))


@contextmanager
def shaped(lab: SshHosts, mbit: int) -> Iterator[None]:
    """Every cable carries so much in each direction."""
    tag = next(iter(lab.places.values()))[1].rpartition("-")[0]
    # This machine's cable and the hosts', each at both ends.
    ends = [((), tag), (("-n", tag), "uplink")]
    for address, namespace in lab.places.values():
        ends += [(("-n", namespace), NETDEV), (("-n", tag), f"port{address.rpartition('.')[2]}")]
    for where, device in ends:
        limit = ("tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "50ms")
        subprocess.run(["tc", *where, "qdisc", "add", "dev", device, "root", *limit], check=True)
    yield


def timed(work: Callable[[], None]) -> float:
    """Seconds of one run."""
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 2)


def turns(bench: Bench, names: Sequence[str], rounds: int, size: int) -> dict[str, Any]:
    """All ways in turns; MB/s is the model's size over the seconds until the last host has it."""
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            bench.clean(names)
            run: Callable[[Sequence[str]], None] = getattr(bench, way)
            took[way].append(timed(lambda run=run: run(names)))  # type: ignore[misc]
    return {
        way: {
            "seconds": rows,
            "median_s": statistics.median(rows),
            "mb_per_s": round(size / 1e6 / statistics.median(rows), 1),
        }
        for way, rows in took.items()
    }


def measure(count: int, mib: int, mbit: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    root = Path(tempfile.mkdtemp(prefix="push-", dir="/dev/shm"))
    try:
        (root / "model").mkdir()
        write_model(root / "model", mib)
        size = sum(file.stat().st_size for file in (root / "model").iterdir())
        with ssh_hosts(count, subnet=SUBNET) as lab:
            bench, names = Bench(lab, root / "model"), list(lab.places)
            free = {"one_host": turns(bench, names[:1], rounds, size), "all_hosts": turns(bench, names, rounds, size)}
            with shaped(lab, mbit):
                tight = {
                    "one_host": turns(bench, names[:1], rounds, size),
                    "all_hosts": turns(bench, names, rounds, size),
                }
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
        return {"machine": machine, "hosts": count, "bytes": size, "free": free, f"shaped_{mbit}_mbit": tight}
    finally:
        shutil.rmtree(root)


def main(argv: Sequence[str]) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="benchmarks.push")
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--mib", type=int, default=192)
    parser.add_argument("--mbit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    text = json.dumps(measure(options.hosts, options.mib, options.mbit, options.rounds), indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
