"""What a node's GPUs and HCAs show now, read only when somebody asks, and not more often than every few seconds.

A driver that hangs must not hang an answer: who asks waits a moment, and then gets what was read last.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shoal.bench.counters import WORD, counts
from shoal.checks.rdma_counters import RULES
from shoal.errors import ShoalError
from shoal.facts.gpu import Gpu
from shoal.facts.net import NetFacts
from shoal.facts.parse.gpu import parse_gpu
from shoal.facts.parse.net import parse_net
from shoal.facts.parse.rdma import parse_rdma
from shoal.facts.rdma import RdmaDevice, RdmaPort
from shoal.host.gather import Command, Request
from shoal.host.snapshot import Snapshot
from shoal.state.live import GpuLive, HcaLive

T = TypeVar("T")
Look = Callable[[Request], Snapshot]

_PORT = "/sys/class/infiniband/*/ports/*"
# What the doctor judges, and nothing else: on some cards every counter is a question to the firmware.
ERRORS = tuple(dict.fromkeys(name for rule in RULES if rule.of == "rdma" for name in rule.counters))
HCAS = Request(
    files=(
        *(f"{_PORT}/{name}" for name in ("state", "link_layer", "rate", "gid_attrs/ndevs/0")),
        *(f"{_PORT}/counters/{name}" for name in ("port_xmit_data", "port_rcv_data", *ERRORS)),
        *(f"{_PORT}/hw_counters/{name}" for name in ("sent_pkts", "rcvd_pkts", *ERRORS)),
        "/sys/class/net/*/mtu",
    ),
    names=("/sys/class/infiniband/*/device/net/*",),
    deadline=5,
)
COLUMNS = "index,name,uuid,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
GPUS = Request(commands=(Command(("nvidia-smi", f"--query-gpu={COLUMNS}", "--format=csv,noheader"), 4),), deadline=5)
HCAS_EVERY, GPUS_EVERY = 1.0, 5.0
# Where the driver did not answer: each further question may hang as well.
AFTER_TROUBLE = 60.0
# What cannot even be killed holds a thread, and a process, for good: each further question comes later.
AFTER_HANG = 3600.0
PATIENCE = 1.0
MIB = 1 << 20


def gpus(snapshot: Snapshot) -> tuple[GpuLive, ...]:
    """The GPUs in a snapshot. Pure."""
    return tuple(_gpu(gpu) for gpu in parse_gpu(snapshot).gpus or ())


def _gpu(gpu: Gpu) -> GpuLive:
    return GpuLive(
        index=gpu.index,
        name=gpu.name,
        uuid=gpu.uuid or "",
        utilisation=None if gpu.utilisation is None else gpu.utilisation / 100,
        memory_used_bytes=None if gpu.used_mib is None else gpu.used_mib * MIB,
        memory_total_bytes=None if gpu.memory_mib is None else gpu.memory_mib * MIB,
        temperature_celsius=gpu.temperature_c,
        power_watts=gpu.power_w,
    )


def hcas(snapshot: Snapshot) -> tuple[HcaLive, ...]:
    """Every port of every HCA in a snapshot. Pure."""
    net = parse_net(snapshot)
    return tuple(_hca(device, port, net) for device in parse_rdma(snapshot).devices or () for port in device.ports)


def _hca(device: RdmaDevice, port: RdmaPort, net: NetFacts) -> HcaLive:
    unit, sent, received = counts(device, port, net)
    return HcaLive(
        device=device.name,
        port=port.number,
        netdev=next(iter(device.netdevs or ()), ""),
        link_layer=port.link_layer or "",
        state=port.state or "",
        rate_gbps=port.rate_gbps,
        received_bytes_total=None if received is None else received * unit,
        sent_bytes_total=None if sent is None else sent * unit,
        estimate=unit != WORD,
        errors=dict(_errors(port)),
    )


def _errors(port: RdmaPort) -> Iterable[tuple[str, int]]:
    known = {**(port.counters or {}), **(port.hw_counters or {})}
    return ((name, value) for name in ERRORS if (value := known.get(name)) is not None)


class _Source(Generic[T]):
    """One thing that is read in a thread; ``read`` tells how many seconds its answer is good for, too."""

    def __init__(self, empty: T, read: Callable[[], tuple[T, float]]) -> None:
        self._read = read
        self._task: asyncio.Task[None] | None = None
        self._began = self._stale = float("-inf")
        self.value = empty

    async def get(self) -> T:
        """What was read last; read anew where that is old, and waited for no longer than a moment."""
        now = time.monotonic()
        if self._task is None and now >= self._stale:
            self._began, self._task = now, asyncio.create_task(self._take())
        if self._task is not None and (left := self._began + PATIENCE - now) > 0:
            await asyncio.wait({self._task}, timeout=left)
        return self.value

    async def _take(self) -> None:
        good_for = AFTER_TROUBLE
        try:
            self.value, good_for = await asyncio.to_thread(self._read)
        except (ShoalError, OSError):
            return  # what was read last stands; the doctor tells what is broken
        finally:
            self._stale, self._task = time.monotonic() + good_for, None


class _Rest:
    """How long a source is left alone."""

    def __init__(self) -> None:
        self._hung = 0.0

    def after(self, usual: float, *, hangs: bool) -> float:
        """Seconds until the next question; twice as long each time that one still hangs at its deadline."""
        self._hung = min(AFTER_HANG, max(AFTER_TROUBLE, 2 * self._hung)) if hangs else 0.0
        return self._hung or usual


@dataclass(frozen=True)
class Reading:
    """GPUs and HCAs; ``at`` is when the HCAs were read, for it is their counters that rates are made of."""

    at: float
    gpus: tuple[GpuLive, ...] = ()
    hcas: tuple[HcaLive, ...] = ()


class Readings:
    """A machine's GPUs and HCAs; ``look`` reads the machine."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._rest_gpus, self._rest_hcas = _Rest(), _Rest()
        self._gpus: _Source[tuple[GpuLive, ...]] = _Source((), self._read_gpus)
        self._hcas: _Source[tuple[float, tuple[HcaLive, ...]]] = _Source((time.time(), ()), self._read_hcas)

    async def get(self) -> Reading:
        """What they show now."""
        found, (at, ports) = await asyncio.gather(self._gpus.get(), self._hcas.get())
        return Reading(at, found, ports)

    def _read_gpus(self) -> tuple[tuple[GpuLive, ...], float]:
        snapshot = self._look(GPUS)
        facts = parse_gpu(snapshot)
        if facts.installed is False:
            return (), float("inf")  # no driver comes to a running agent without a restart
        usual = AFTER_TROUBLE if facts.gpus is None else GPUS_EVERY
        return gpus(snapshot), self._rest_gpus.after(usual, hangs=not snapshot.replies)

    def _read_hcas(self) -> tuple[tuple[float, tuple[HcaLive, ...]], float]:
        snapshot = self._look(HCAS)
        rest = self._rest_hcas.after(HCAS_EVERY, hangs="ETIMEDOUT" in snapshot.errors.values())
        return (snapshot.taken or time.time(), hcas(snapshot)), rest
