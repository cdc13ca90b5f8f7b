"""GPUs, as ``nvidia-smi`` reports them."""

from dataclasses import dataclass

from shoal.errors import CommandFailed
from shoal.host.base import Host

QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in MiB, None where the driver does not say (unified memory)."""

    index: int
    name: str
    memory_mib: int | None


def parse(text: str) -> tuple[Gpu, ...]:
    """GPUs from the CSV that :data:`QUERY` prints; lines of another form are left out."""
    gpus = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].isdigit():
            gpus.append(Gpu(int(parts[0]), parts[1], int(parts[2]) if parts[2].isdigit() else None))
    return tuple(gpus)


def read(host: Host) -> tuple[Gpu, ...] | None:
    """The machine's GPUs; None where it has no ``nvidia-smi``, empty where that sees none.

    Raises:
        CommandFailed: nvidia-smi is there and fails: the driver does not answer.
    """
    result = host.run(QUERY, timeout=20, ok=range(256))
    if result.code == 127:
        return None
    if result.code != 0:
        why = (result.err or result.out).strip()
        raise CommandFailed(f"{host.name}: nvidia-smi ended with code {result.code}", why=why)
    return parse(result.out)
