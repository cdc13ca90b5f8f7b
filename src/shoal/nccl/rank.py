"""What one process told of its NCCL: version, network, devices, transports. The reader fills it, judgement reads it."""

from dataclasses import dataclass, field

Where = tuple[int, str]  # number of a line in its file, and the line

MOST_DEVICES = 64
MOST_KINDS = 64
MOST_ENV = 400
MOST_WARNINGS = 50


@dataclass
class Hca:
    """One RDMA device as NCCL lists it."""

    name: str
    port: int = 0
    layer: str = ""  # RoCE or IB
    speed: int = 0  # Mb/s; 0 where NCCL did not say
    gid_index: int | None = None
    gid: str = ""
    gdr: bool | None = None  # GPUDirect RDMA; None where NCCL did not say


@dataclass
class Rank:
    """One process. What it says later replaces what it said before; ``where`` has the line of each word."""

    source: str
    host: str
    pid: int
    rank: int | None = None
    nranks: int = 0
    nodes: int = 0
    local_ranks: int = 0
    comm: str = ""
    version: str = ""
    network: str = ""
    oob: str = ""
    plugin: str = ""
    plugin_missing: str = ""
    plugins_failed: list[str] = field(default_factory=list)
    no_device: bool = False
    nvlink: bool = False
    complete: bool = False
    hcas: dict[str, Hca] = field(default_factory=dict)
    merged: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)  # by transport: P2P, SHM, NET/IB, ...
    gdr_channels: int = 0
    warnings: list[Where] = field(default_factory=list)
    where: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # what was said: number and line, as it is

    @property
    def name(self) -> str:
        """How it is called on a page."""
        return f"rank {self.rank}" if self.rank is not None else f"{self.host}:{self.pid}"

    @property
    def net_channels(self) -> dict[str, int]:
        """Channels that go through a network."""
        return {name: count for name, count in self.channels.items() if name.startswith(("NET/", "COLLNET/"))}

    @property
    def rdma(self) -> bool | None:
        """Whether the network is RDMA; None where nothing tells."""
        used = {name.partition("/")[2] for name in self.net_channels} or {self.network} - {""}
        return all(is_rdma(name) for name in used) if used else None

    @property
    def gdr(self) -> bool | None:
        """Whether GPUDirect RDMA is used: by channels where there are any, else as the devices say."""
        if self.rdma is False:
            return False
        if self.net_channels:
            return self.gdr_channels > 0
        told = [hca.gdr for hca in self.hcas.values() if hca.gdr is not None]
        return any(told) if told else None


def is_rdma(network: str) -> bool:
    """Whether NCCL's name of a network means RDMA: its own, a plugin's (IBext_v8), or libfabric's."""
    return network != "" and "socket" not in network.lower()
