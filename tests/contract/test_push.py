"""`shoal push-model` between three hosts with real sshd: whole, torn, damaged, full, lost, refused."""

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.ssh_hosts import SshHosts, ssh_hosts
from tests.subnets import free_subnet

from shoal.errors import HostUnreachable, PreconditionFailed
from shoal.host.ssh import SshHost
from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.push.model import Pushed, Wish, push_model
from shoal.ops.push.party import Party
from shoal.ops.push.transfer import Row
from shoal.plan.push import PORT
from shoal.spec.cluster import ClusterSpec, parse

SUBNET = free_subnet(142)
ROOT = "~/.local/share/shoal/lab/models"
SHARD = 12 << 20  # bytes
NAMES = ("gpu-1", "gpu-2", "gpu-3")


@dataclass
class Watch:
    """An observer that does something once hosts hold so much."""

    when: int = 1 << 62
    act: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def moving(self, rows: Sequence[Row]) -> None:
        if sum(row.held for row in rows if row.state == "takes") >= self.when:
            self.when = 1 << 62
            self.act()


@dataclass
class Lab:
    """The hosts, their cluster file, and a model on this machine."""

    place: SshHosts
    spec: ClusterSpec
    model: Path
    env: dict[str, str]

    @property
    def hosts(self) -> Mapping[str, SshHost]:
        return open_hosts(self.spec, config=str(self.place.config), sockets=str(self.place.config.parent))

    def push(self, model: str = "", watch: Watch | None = None, **env: str) -> Pushed:
        wish = Wish(self.spec, model or str(self.model))
        return push_model(wish, self.hosts, self.env | env, watch or Watch())

    def sh(self, name: str, script: str) -> str:
        return self.hosts[name].run(["sh", "-c", script], timeout=30, ok=range(256)).out

    def sums(self, name: str, folder: str = "tiny") -> dict[str, str]:
        """Files that have their final name, with their digests."""
        out = self.sh(name, f"cd {ROOT}/{folder} 2>/dev/null && find . -type f | xargs -r sha256sum")
        return {path.removeprefix("./"): digest for digest, path in (line.split() for line in out.splitlines())}

    def left(self, name: str) -> tuple[str, str]:
        """Relays that run there, and ports of theirs that listen."""
        # Every process of the host, by its whole command: a relay is `python3 -c` of our own program.
        relays = (
            "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f 2>/dev/null | grep '^python3 -c import json'; done"
        )
        return self.sh(name, relays), self.sh(name, f"ss -Hltn sport = :{PORT}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts, and a model of two shards."""
    folder = tmp_path_factory.mktemp("push")
    text = "cluster: lab\nhosts:\n" + "".join(f"  - {{name: gpu-{n}, fabric: {SUBNET}.{n}}}\n" for n in (1, 2, 3))
    with ssh_hosts(3, subnet=SUBNET) as place:
        env = {"SHOAL_CACHE_DIR": str(folder / "cache"), "HF_HOME": str(folder / "nothing"), "HF_HUB_OFFLINE": "1"}
        yield Lab(place, parse(text, "shoal.yaml"), write_model(folder / "tiny"), env)


@pytest.fixture
def empty(lab: Lab) -> Lab:
    """The hosts, with nothing on them."""
    for name in NAMES:
        lab.sh(name, "umount ~/.local/share/shoal/lab 2>/dev/null; rm -rf ~/.local/share/shoal")
    return lab


def write_model(folder: Path) -> Path:
    """A folder that is a whole model to whoever looks: two shards, an index, config and tokenizer."""
    folder.mkdir()
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in shards:
        header = json.dumps({"w": {"dtype": "U8", "shape": [SHARD], "data_offsets": [0, SHARD]}}).encode()
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(SHARD))
    index = {"metadata": {"total_size": 2 * SHARD}, "weight_map": dict(zip("ab", shards, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


@contextmanager
def slow(lab: Lab) -> Iterator[None]:
    """This machine's cable carries 10 MB/s, so that there is a middle in which something can happen."""
    device = lab.place.places["gpu-1"][1].rpartition("-")[0]
    limit = ("root", "tbf", "rate", "80mbit", "burst", "64kb", "latency", "50ms")
    subprocess.run(["tc", "qdisc", "add", "dev", device, *limit], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", device, "root"], check=True, timeout=20)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_model_arrives_whole_on_every_host_and_once(empty: Lab) -> None:
    """Every host has every file; a second push moves nothing; no relay and no port is left."""
    first, meant = empty.push(), digests(empty.model)
    again = empty.push()
    assert (first.outcome.done, first.outcome.failed, first.served) == (NAMES, {}, "/models/tiny")
    assert set(first.outcome.moved.values()) == {sum(file.stat().st_size for file in empty.model.iterdir())}
    assert (again.outcome.done, set(again.outcome.moved.values())) == (NAMES, {0})
    assert [empty.sums(name) for name in NAMES] == [meant] * 3
    assert [empty.left(name) for name in NAMES] == [("", "")] * 3


def test_an_interrupted_push_leaves_no_half_file_and_goes_on_where_it_stood(empty: Lab) -> None:
    """Ctrl-C in the middle: what has its name is whole, nothing runs on any host, and the next push takes the rest."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with slow(empty), pytest.raises(KeyboardInterrupt):
        empty.push(watch=Watch(SHARD // 2, interrupt))
    meant = digests(empty.model)
    assert all(empty.sums(name).items() <= meant.items() for name in NAMES)
    assert [empty.left(name) for name in NAMES] == [("", "")] * 3
    rest = empty.push().outcome
    assert (rest.done, rest.moved["gpu-1"] < rest.total) == (NAMES, True)
    assert [empty.sums(name) for name in NAMES] == [meant] * 3


def test_a_damaged_file_is_taken_anew_and_no_other(empty: Lab) -> None:
    """One byte that is other than on this machine: that file comes once more, from the host before."""
    empty.push()
    shard = "model-00001-of-00002.safetensors"
    empty.sh("gpu-3", f"cd {ROOT}/tiny && printf x | dd of={shard} bs=1 seek=5000 conv=notrunc")
    mended = empty.push().outcome
    assert mended.moved == {"gpu-1": 0, "gpu-2": 0, "gpu-3": (empty.model / shard).stat().st_size}
    assert empty.sums("gpu-3") == digests(empty.model)


def test_a_damaged_part_is_thrown_away(empty: Lab) -> None:
    """A part that is not what it ought to be costs its own transfer, and no wrong file gets the name."""
    empty.push()
    meant = digests(empty.model)
    shard, size = "model-00001-of-00002.safetensors", SHARD // 2
    part = hashlib.sha256(f"tiny/{shard}{meant[shard]}".encode()).hexdigest()
    empty.sh("gpu-2", f"cd {ROOT} && rm tiny/{shard} && head -c {size} /dev/zero > .shoal/parts/{part}")
    assert empty.push().outcome.done == NAMES
    assert empty.sums("gpu-2") == meant


def test_a_full_disk_is_told_and_the_others_get_it(empty: Lab) -> None:
    """A host without room is named with what it lacks; one that runs full in the middle as well."""
    empty.sh("gpu-2", "mkdir -p ~/.local/share/shoal/lab && mount -t tmpfs -o size=8m none ~/.local/share/shoal/lab")
    outcome = empty.push().outcome
    assert (outcome.done, str(outcome.failed["gpu-2"]).splitlines()[0]) == (
        ("gpu-1", "gpu-3"),
        "gpu-2 has no room: 0.0 GB are missing there, 0.0 GB are free",
    )
    empty.sh("gpu-2", "umount ~/.local/share/shoal/lab")
    # Room for bytes, but for a few names only: the system says that there is no space when the third file begins.
    small = "mount -t tmpfs -o size=99m,nr_inodes=9 none ~/.local/share/shoal/lab"
    empty.sh("gpu-2", small)
    full = empty.push().outcome
    assert (full.done, full.failed["gpu-2"].why) == (("gpu-1", "gpu-3"), "No space left on device")
    assert empty.sums("gpu-2").items() <= digests(empty.model).items()


def test_a_host_that_is_lost_does_not_keep_the_others_from_it(empty: Lab) -> None:
    """The middle one's cable is pulled: the one behind asks the one before it. What ran on it ends by itself."""
    try:
        with slow(empty):
            outcome = empty.push(watch=Watch(1, lambda: empty.place.cable("gpu-2", up=False))).outcome
    finally:
        empty.place.cable("gpu-2", up=True)
    assert (outcome.done, type(outcome.failed["gpu-2"])) == (("gpu-1", "gpu-3"), HostUnreachable)
    assert [empty.sums(name) for name in ("gpu-1", "gpu-3")] == [digests(empty.model)] * 2
    end = time.monotonic() + 60
    while empty.left("gpu-2") != ("", ""):
        assert time.monotonic() < end
        time.sleep(0.5)


def test_a_port_that_is_taken_is_told(empty: Lab) -> None:
    """The host, address and port are named, and what mends it."""
    held = f"held = socket.create_server(('{SUBNET}.2', {PORT}))"
    listen = f"import socket, sys; {held}; print('up', flush=True); sys.stdin.read()"
    talk = empty.hosts["gpu-2"].start(["python3", "-c", listen])
    try:
        assert talk.line() == "up"
        found = empty.push().outcome
    finally:
        talk.close()
    assert (found.done, str(found.failed["gpu-2"])) == (
        ("gpu-1", "gpu-3"),
        f"gpu-2: port {PORT} of {SUBNET}.2 is taken there\nfix: --port with another, or: ss -ltnp   # there",
    )


def test_a_second_push_is_refused_and_told_of_the_first(empty: Lab) -> None:
    """Two at once would write the same parts: the second hears who is at work."""
    with Party({"gpu-1": empty.hosts["gpu-1"]}) as party:
        party.peers["gpu-1"].order(do="open", root=ROOT, who="somebody@chair", scan=["."])
        while party.hear()[1]["told"] != "found":
            pass
        failed = empty.push().outcome.failed
    assert list(failed) == ["gpu-1"]
    assert failed["gpu-1"].what.startswith("gpu-1: another push is at work there: somebody@chair, since ")


def test_only_who_knows_the_token_gets_a_byte(empty: Lab) -> None:
    """The port is on the fabric address alone, open while a push runs; a wrong proof is refused and told of."""
    data = b"weights"
    order = {"do": "open", "root": ROOT, "who": "me", "scan": [], "anew": False, "token": "right", "port": PORT}
    files = [("m/w", len(data), hashlib.sha256(data).hexdigest())]
    with Party({"gpu-1": empty.hosts["gpu-1"]}) as party:
        peer = party.peers["gpu-1"]
        peer.order(**order, files=files, address=f"{SUBNET}.1")
        wait(party, "ready")
        peer.put(0, 0, data)
        wait(party, "have")
        bound = empty.sh("gpu-1", f"ss -Hltn sport = :{PORT}").split()[3]
        answers = [ask(token) for token in ("wrong", "right")]
        assert (bound, answers) == (f"{SUBNET}.1:{PORT}", [b"refused\n", b"ok\n" + data])
        assert wait(party, "refused")["caller"] == f"{SUBNET}.254"
        assert "right" not in empty.sh("gpu-1", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'")
    with pytest.raises(ConnectionRefusedError):
        ask("right")


def wait(party: Party, what: str) -> dict[str, Any]:
    while (report := party.hear()[1])["told"] != what:
        assert report["told"] != "failed", report
    return report


def ask(token: str) -> bytes:
    """All that a relay sends to who has this token."""
    from shoal.host.relay import _proof

    with socket.create_connection((f"{SUBNET}.1", PORT), timeout=10) as line:
        nonce = line.makefile("rb").readline().decode().strip()
        line.sendall(json.dumps({"file": 0, "offset": 0, "proof": _proof(token, nonce, 0, 0)}).encode() + b"\n")
        return b"".join(iter(lambda: line.recv(100), b""))


def test_a_model_that_one_host_has_comes_from_there(empty: Lab) -> None:
    """This machine has it not: /models/NAME means the hosts', and the one that has it whole gives it."""
    empty.push()
    for name in ("gpu-1", "gpu-3"):
        empty.sh(name, f"rm -r {ROOT}/tiny")
    pushed = empty.push("/models/tiny")
    assert (pushed.origin, pushed.outcome.done, pushed.outcome.moved["gpu-2"]) == ("gpu-2", NAMES, 0)
    assert [empty.sums(name) for name in NAMES] == [digests(empty.model)] * 3
    for name in NAMES:
        empty.sh(name, f"rm {ROOT}/tiny/config.json")
    with pytest.raises(PreconditionFailed, match=r"no host has a whole tiny"):
        empty.push("/models/tiny")


@dataclass
class Hub:
    """A hub on this machine: one model. ``asked`` are the ranges of weights that were asked for."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    commit: str = "c" * 40

    def answer(self, path: str, wanted: str) -> tuple[int, bytes]:
        if path.startswith("/api/"):
            return 200, json.dumps(
                {"sha": self.commit, "siblings": [self._row(file) for file in self.folder.iterdir()]}
            ).encode()
        data = (self.folder / path.rpartition("/")[2]).read_bytes()
        if path.endswith(".safetensors"):
            self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        return (206, data[start:]) if wanted else (200, data)

    def _row(self, file: Path) -> dict[str, Any]:
        data, row = file.read_bytes(), {"rfilename": file.name}
        if file.suffix == ".safetensors":
            return row | {"lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        return row | {"size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}


@pytest.fixture
def hub(lab: Lab) -> Iterator[tuple[Hub, str]]:
    """A hub, and its address."""
    known = Hub(lab.model)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, data = known.answer(self.path, self.headers.get("Range", ""))
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield known, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_model_of_the_hub_is_asked_for_once_and_found_by_its_name(empty: Lab, hub: tuple[Hub, str]) -> None:
    """It is laid out as the hub's own client would, so that an engine without internet finds it by its name."""
    known, address = hub
    pushed = empty.push("org/tiny", HF_ENDPOINT=address, HF_HUB_OFFLINE="")
    target = f"hub/models--org--tiny/snapshots/{known.commit}"
    assert (pushed.served, pushed.origin, pushed.outcome.done, known.asked) == ("org/tiny", "the hub", NAMES, ["", ""])
    assert [empty.sums(name, target) for name in NAMES] == [digests(empty.model)] * 3
    assert empty.sh("gpu-3", f"cat {ROOT}/hub/models--org--tiny/refs/main") == known.commit
    empty.sh("gpu-1", f"rm -r {ROOT}/hub")
    assert empty.push("org/tiny").origin == "gpu-2"  # the hub is not needed any more
