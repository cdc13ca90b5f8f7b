"""GPUs and RDMA devices in words, as the agent's story tells them, and whether the GPUs are free."""

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.errors import CommandFailed, PreconditionFailed
from shoal.facts import gpu, rdma
from shoal.host.base import Host
from shoal.log import EventLog

USED = ("nvidia-smi", "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")
HOLDERS = ("nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits")
# A desktop takes some hundred MiB of its GPU; an engine that is left over takes most of it.
IDLE_SHARE, IDLE_MIB = 0.1, 1024
DEV = "/dev/infiniband"


@dataclass(frozen=True)
class Held:
    """A GPU in whose memory something lies, in MiB."""

    index: str
    used: int
    total: int


def look(log: EventLog, host: Host, wanted: int | None = None, *, shared: bool = False, visible: str = "") -> int:
    """Say which GPUs and RDMA devices are present; returns the number of GPUs to offer: ``wanted``, else all.
    ``visible`` is CUDA_VISIBLE_DEVICES: what it leaves out is not looked at.

    Raises:
        PreconditionFailed: the driver does not answer or sees fewer than are wanted, or somebody else holds a GPU and
            they are not ``shared``.
    """
    gpus = _gpus(host, visible)
    if gpus is None:
        log("preflight", "no GPU: nvidia-smi is not installed")
    else:
        names = ", ".join(item.name for item in gpus) or "none seen by the driver"
        log("preflight", f"{len(gpus)} GPU(s), says nvidia-smi: {names}")
    for words in rdma_words(host):
        log("preflight", words)
    # Without a driver the number is one of logical GPUs: ranks on CPUs.
    if gpus is not None and wanted is not None and wanted > len(gpus):
        what = f"SHOAL_NUM_GPUS={wanted}, and nvidia-smi sees {len(gpus)} GPU(s)"
        raise PreconditionFailed(what, fix="nvidia-smi   # then mend the driver, or correct SHOAL_NUM_GPUS")
    if gpus and wanted != 0 and not shared:
        refuse_held(host, visible)
    return len(gpus or ()) if wanted is None else wanted


def _gpus(host: Host, visible: str) -> tuple[gpu.Gpu, ...] | None:
    try:
        return gpu.read(host, visible)
    except CommandFailed as error:
        raise PreconditionFailed(str(error), why=error.why, fix="nvidia-smi   # then mend the driver") from error


def rdma_words(host: Host) -> tuple[str, ...]:
    """The kernel's HCAs, what of them this container was given, and which interface belongs to which."""
    hcas = rdma.read(host)
    given = host.list(DEV)
    nodes = f"{DEV}: {', '.join(given)}" if given else f"no {DEV}: programs here can use no RDMA device"
    if not hcas:
        return (f"no RDMA device in {rdma.CLASS}", *((nodes,) if given else ()))
    words = ", ".join(f"{hca.device} {hca.state} ({hca.link_layer})" for hca in hcas)
    return (f"RDMA: {words}", nodes, _links(host))


def _links(host: Host) -> str:
    answer = host.run(("rdma", "link"), timeout=10, ok=range(256))
    if answer.code:
        absent = answer.code == 127
        why = "is not in this image" if absent else f"ended with code {answer.code}: {answer.err.strip()}"
        return f"`rdma link` {why}: which interface belongs to which HCA is not known"
    links = [" ".join(line.split()[1:]) for line in answer.out.splitlines() if line.startswith("link ")]
    return f"rdma link: {'; '.join(links)}" if links else "`rdma link` names no link"


def parse_held(text: str) -> tuple[Held, ...]:
    """GPUs of which more is in use than a desktop takes; unified memory, which is not told, is left out."""
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    numbers = [Held(row[0], int(row[1]), int(row[2])) for row in rows if len(row) == 3 and all(map(_is_number, row))]
    return tuple(item for item in numbers if item.used > max(IDLE_MIB, IDLE_SHARE * item.total))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def refuse_held(host: Host, visible: str = "") -> None:
    """Raise PreconditionFailed where a visible GPU is in use before anything was started here."""
    only = gpu.chosen(visible)
    held = parse_held(host.run((*USED, *only), timeout=20, ok=range(256)).out)
    if not held:
        return
    apps = host.run((*HOLDERS, *only), timeout=20, ok=range(256)).out.splitlines()
    gpus = "; ".join(f"GPU {item.index}: {item.used} of {item.total} MiB are in use" for item in held)
    raise PreconditionFailed(
        f"GPUs are held by another process: {gpus}",
        why=holder_words(apps),
        fix="end it (`docker ps`, `nvidia-smi` on the machine), or set SHOAL_SHARE_GPUS=1",
    )


def holder_words(lines: Sequence[str]) -> str:
    """Who holds them, as far as nvidia-smi may tell: it shows no process of another container."""
    rows = [[part.strip() for part in line.split(",")] for line in lines]
    known = [f"{row[1]} (pid {row[0]}, {row[2]} MiB)" for row in rows if len(row) == 3 and _is_number(row[0])]
    return ", ".join(known) or "by a process that cannot be seen from inside this container"
