"""NCCL's log, line by line, from 2.18 to 2.32: what each process says of itself. Constant memory, any line head.

Lines are bytes: a log holds anything. The words are NCCL's own; where they moved between versions, each form stands
in the pattern. Other lines (Ray's, vLLM's, torch's) are not for this reader, and ``feed`` says so.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address

from shoal.nccl.rank import MOST_DEVICES, MOST_ENV, MOST_KINDS, MOST_WARNINGS, Hca, Rank

MOST_HEADS = 8192
SHOWN = 2000  # bytes of a line that are looked at to show it
MOST_RANKS = 4096
MARK = b" NCCL "
INFO = b"INFO "
NUMBER = b"NCCL version 2"
# host:pid:tid [device] [file:line [(function)]] NCCL LEVEL text; in front of it anything.
HEAD = re.compile(rb"([\w.\-]+):(\d+):(\d+) \[(-?\d+)\](?: [\w./+\-]+:\d+(?: \([^)]*\))?)?$")
HEAD_INSIDE = re.compile(rb"(?<![\w.\-])(?=[\w.\-]+:\d+:\d+ \[-?\d+\] (?:[\w./+\-]+:\d+ )?(?:\([^)]*\) )?NCCL )")
RAY_IP = re.compile(rb"\(\w* ?pid=\d+, ip=([\w.:]+)\)")
LEVEL = re.compile(rb"([A-Z]+) ?")
ENV = re.compile(rb"(NCCL_\w+) set (?:by environment )?to (.*)")
CHANNEL = re.compile(rb"via (P2P|SHM|(?:COLL)?NET/[^/]+)(\S*)")
COMM = re.compile(rb"rank (\d+) n[rR]anks (\d+)(?:.*? nNodes (\d+) localRanks (\d+))?(?:.*? commId (0x\w+))?")
VERSION = re.compile(rb"NCCL version ([\w.+\-]+)")
DEVICE = re.compile(rb"\[\d+\] ?([\w\-]+):(\d+)/(\w+)")
MERGED_LIST = re.compile(rb"\[\d+\]=\{([^}]*)\}")  # 2.20 to 2.23
DEVICE_LONG = re.compile(rb"\[\d+\] ([\w\-]+):[\w\-]+:(\d+)/(\w+) provider=\S* speed=(\d+)")
MERGED = re.compile(rb"Made virtual device \[\d+\] name=(\S+) speed=(\d+) ndevs=(\d+)")
OOB = re.compile(rb"OOB ([\w.\-]+):")
GDR = re.compile(rb"GPU Direct RDMA (Enabled|Disabled) for HCA \d+ '([^']*)'")
GID = re.compile(rb"(?:IbDev|Dev) (\d+) Port \d+ qpn \d+ mtu \d+ GID (-?\d+) \(([0-9A-Fa-f]+)/([0-9A-Fa-f]+)\)")
MISSING = re.compile(rb"Could not find: *(\S+?)\.? |Plugin load \(([^)]*)\) returned|when loading (\S+)")
LOADED = re.compile(rb"Loaded net plugin (.+?) \(v\d+\)")
USING = re.compile(rb"Using (?:\[\d+\])?([\w.\-]+):")
REPEATED = re.compile(rb"(?:\x1b\[[0-9;]*m)? ?\[repeated \d+x across cluster\].*$")
# First words of lines that tell a person about rings and trees, and nothing that is judged here.
PLAIN = frozenset(
    b"Ring Tree Trees NVLS Pattern === Check [Proxy New Connected threadThresholds CC Init MNNVL "
    b"[Service Skipping Setting ncclTopoGetCpuAffinity: ncclP2pSchedule:".split()
)

CHANNELS = frozenset((b"Channel", b"CollNet"))
TOPOLOGY = frozenset((b"", b"+"))  # of the tree of PCI, NVLink and NICs, line by line


class NcclReader:
    """Reads one file's lines; ``ranks`` has what its processes said."""

    def __init__(self, source: str = "-") -> None:
        self.source = source
        self.version = ""  # of a "NCCL version" that stood on a line without head
        self.ranks: dict[tuple[str, str, int], Rank] = {}
        self._heads: dict[bytes, Rank | None] = {}
        self._ways: dict[bytes, tuple[str, bool]] = {}

    def feed(self, line: bytes, number: int) -> bool:
        """Take one line in. True where signatures cannot say anything of it; False: look at it yourself."""
        return not self.feed_all((line,), number)

    def feed_all(self, lines: Sequence[bytes], first: int) -> list[tuple[int, bytes]]:
        """Take lines in, the first of which has this number; gives those of which signatures may say something.

        Of the million lines in 100 MB most are plain ones of a process that is known. They cost look-ups and no call.
        """
        heads, rest = self._heads, []
        for number, line in enumerate(lines, first):
            head, mark, text = line.partition(MARK)
            if not mark:
                if NUMBER in line:
                    self._version_alone(line)
                rest.append((number, line))
                continue
            rank = heads.get(head)
            if rank is None or text[:5] != INFO or MARK in text:
                known = self._rare(head, text, line, number)
            else:
                known = text.split(b" ", 2)[1] in PLAIN or self._info(rank, text[5:], line, number)
            if not known:
                rest.append((number, line))
        return rest

    def _rare(self, head: bytes, text: bytes, line: bytes, number: int) -> bool:
        """A head that is new or none, a warning, or two lines torn into one."""
        rank = self._heads[head] if head in self._heads else self._who(head)
        if rank is None:
            self._version_alone(line)
            return False
        if MARK in text and len(torn := HEAD_INSIDE.split(line)) > 2:  # a prefix, two heads
            for part in torn:
                self.feed(part, number)
            return False
        if text.startswith(INFO):
            return self._info(rank, text[5:], line, number)
        self._other(rank, text, line, number)
        return False

    def _who(self, head: bytes) -> Rank | None:
        """The process that speaks, by the head of its line; remembered, for heads repeat."""
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        found = HEAD.search(ANSI.sub(b"", head))
        ray = RAY_IP.search(head)
        rank = self._rank(found[1].decode(), ray[1].decode() if ray else "", int(found[2])) if found else None
        self._heads[head] = rank
        return rank

    def _rank(self, host: str, ip: str, pid: int) -> Rank:
        key = (host, ip, pid)
        if key not in self.ranks and len(self.ranks) >= MOST_RANKS:
            del self.ranks[next(iter(self.ranks))]
            self._heads.clear()
        return self.ranks.setdefault(key, Rank(self.source, host, pid, version=self.version))

    def _version_alone(self, line: bytes) -> None:
        """Before 2.26 the version is printed without a head."""
        if NUMBER in line and (found := VERSION.search(line)):
            self.version = found[1].decode()
            for rank in self.ranks.values():
                rank.version = rank.version or self.version

    def _info(self, rank: Rank, text: bytes, line: bytes, number: int) -> bool:
        word, _, rest = text.partition(b" ")
        if word in CHANNELS:
            self._channel(rank, text, line, number)
            return True
        if word in TOPOLOGY:
            rank.nvlink = rank.nvlink or b"+ NVL[" in text
            return True
        if act := ACTS.get(word):
            act(rank, text, line, number)
        elif word[:4] == b"NET/":
            _net(rank, word, rest, line, number)
        elif word[:5] == b"NCCL_":
            _env(rank, text, line, number)
        return word in PLAIN

    def _channel(self, rank: Rank, text: bytes, line: bytes, number: int) -> None:
        """Count a channel by its transport. Few ways are told in many lines, so what a way means is remembered."""
        way = text[text.find(b"via ") :]
        if way not in self._ways:
            if len(self._ways) >= MOST_HEADS:
                self._ways.clear()
            found = CHANNEL.search(text)
            told = found and (found[1].decode("utf-8", errors="replace"), b"GDRDMA" in found[2])
            self._ways[way] = told or ("", False)
        kind, direct = self._ways[way]
        if kind and kind not in rank.channels:
            if len(rank.channels) >= MOST_KINDS:
                return
            rank.channels[kind] = 0
            _say(rank, kind, line, number)
        if kind:
            rank.channels[kind] += 1
            rank.gdr_channels += direct

    def _other(self, rank: Rank, text: bytes, line: bytes, number: int) -> None:
        """WARN, VERSION and the like."""
        level = LEVEL.match(text)
        if level and level[1] == b"WARN" and len(rank.warnings) < MOST_WARNINGS:
            rank.warnings.append((number, shown(line)))
        elif found := VERSION.search(line):
            rank.version = found[1].decode()


def shown(line: bytes) -> str:
    """A line as evidence shows it: decoded, without colours and control characters, at most 400 characters."""
    text = ANSI.sub(b"", line[:SHOWN]).decode("utf-8", errors="replace").strip()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text[:400]


ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
Act = Callable[[Rank, bytes, bytes, int], None]


def _say(rank: Rank, name: str, line: bytes, number: int) -> None:
    rank.where[name] = (number, line[:SHOWN])


def _env(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    found = ENV.match(text)
    if not found or len(rank.env) >= MOST_ENV:
        return
    name = found[1].decode()
    # "NCCL_P2P_DISABLE set by environment to 1" and "... to 1.": numbers have a full stop in some versions.
    rank.env[name] = shown(REPEATED.sub(b"", found[2])).removesuffix(".")
    _say(rank, name, line, number)


def _net(rank: Rank, word: bytes, text: bytes, line: bytes, number: int) -> None:
    if b"No device found" in text:
        rank.no_device = True
        _say(rank, "no device", line, number)
    elif word.startswith(b"NET/Plugin"):
        _plugin(rank, text, line, number)
    elif found := GDR.search(text):
        name = found[2].decode()
        if not word.startswith(b"NET/Socket") and (name in rank.hcas or len(rank.hcas) < MOST_DEVICES):
            _gdr(rank, name, enabled=found[1] == b"Enabled")
            _say(rank, "gdr", line, number)
    elif b"Using" in text or b"provider=" in text:
        _devices(rank, word, text, line, number)
    elif found := MERGED.search(text):
        _merged(rank, found[1].decode())
    elif found := GID.search(text):
        _gid(rank, found)


def _merged(rank: Rank, name: str) -> None:
    if "+" in name and name not in rank.merged and len(rank.merged) < MOST_DEVICES:
        rank.merged.append(name)


def _gdr(rank: Rank, name: str, *, enabled: bool) -> None:
    """GPUDirect of a device; of a merged one it is said once, for all its parts."""
    for part in name.split("+"):
        if part in rank.hcas or "+" not in name:
            rank.hcas.setdefault(part, Hca(part)).gdr = enabled


def _devices(rank: Rank, word: bytes, text: bytes, line: bytes, number: int) -> None:
    if word.startswith(b"NET/Socket"):
        if found := USING.search(text):
            rank.oob = rank.oob or found[1].decode()
        return
    for found in DEVICE_LONG.finditer(text):
        if len(rank.hcas) < MOST_DEVICES:
            hca = rank.hcas.setdefault(found[1].decode(), Hca(found[1].decode()))
            hca.port, hca.layer, hca.speed = int(found[2]), found[3].decode(), int(found[4])
    if b"provider=" in text:
        return
    for found in DEVICE.finditer(text):
        if len(rank.hcas) < MOST_DEVICES:
            hca = rank.hcas.setdefault(found[1].decode(), Hca(found[1].decode()))
            hca.port, hca.layer = int(found[2]), found[3].decode()
            rank.no_device = False
    for group in MERGED_LIST.finditer(text):
        _merged(rank, b"+".join(found[1] for found in DEVICE.finditer(group[1])).decode())
    if found_oob := OOB.search(text):
        rank.oob = found_oob[1].decode()
    _say(rank, "devices", line, number)


def _gid(rank: Rank, found: re.Match[bytes]) -> None:
    """The GID of a queue pair. NCCL prints the two halves as they lie in memory: the bytes are in order."""
    index = int(found[1])
    if index >= len(rank.hcas):
        return
    hca = list(rank.hcas.values())[index]
    hca.gid_index = int(found[2])
    raw = (int(found[3], 16) % 2**64).to_bytes(8, "little") + (int(found[4], 16) % 2**64).to_bytes(8, "little")
    address = IPv6Address(raw)
    hca.gid = str(address.ipv4_mapped or address)


def _plugin(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    if found := LOADED.search(text):
        rank.plugin = shown(found[1])
        _say(rank, "plugin", line, number)
    elif found := MISSING.search(text + b" "):
        rank.plugin_missing = shown(found[1] or found[2] or found[3]).rstrip(".")
        _say(rank, "plugin missing", line, number)


def _using(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    if text.startswith(b"Using network "):
        rank.network = shown(REPEATED.sub(b"", text[14:]))
        _say(rank, "network", line, number)


def _version(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    del line, number
    if found := VERSION.match(text):
        rank.version = found[1].decode()


def _comm(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    found = COMM.search(text)
    if not found:
        return
    nranks = int(found[2])
    if nranks >= rank.nranks:  # the widest communicator names the rank; groups inside it count anew
        rank.rank, rank.nranks = int(found[1]), nranks
        rank.comm = found[5].decode() if found[5] else rank.comm
        if found[3]:
            rank.nodes, rank.local_ranks = int(found[3]), int(found[4])
    if b"Init COMPLETE" in text:
        rank.complete = True
        _say(rank, "complete", line, number)


def _failed(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    if text.startswith(b"Failed to initialize NET plugin "):
        name = shown(text[32:])
        if name not in rank.plugins_failed and len(rank.plugins_failed) < MOST_DEVICES:
            rank.plugins_failed.append(name)
        _say(rank, "plugin failed", line, number)


def _distance(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    if b"RDMA Disabled for GPU" in text:
        _say(rank, "gdr distance", line, number)


def _p2p(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    """The plugin of HPC-X says its name so: "P2P plugin IBext_v8"."""
    if text.startswith(b"P2P plugin "):
        rank.plugin = shown(REPEATED.sub(b"", text[11:]))
        _say(rank, "plugin", line, number)


def _bootstrap(rank: Rank, text: bytes, line: bytes, number: int) -> None:
    del line, number
    if found := USING.search(text):
        rank.oob = found[1].decode()


ACTS: dict[bytes, Act] = {
    b"Using": _using,
    b"NCCL": _version,
    b"comm": _comm,
    b"ncclCommInitRank": _comm,
    b"ncclCommInitRankConfig": _comm,
    b"ncclCommInitRankScalable": _comm,
    b"ncclCommInitAll": _comm,
    b"ncclCommSplit": _comm,
    b"GPU": _distance,
    b"P2P": _p2p,
    b"Failed": _failed,
    b"Bootstrap": _bootstrap,
    b"Bootstrap:": _bootstrap,
}
