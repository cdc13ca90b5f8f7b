"""What GPUs have in memory, by the name that people give them; for planning without one at hand."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class GpuKind:
    """A kind of GPU: memory in MiB as ``nvidia-smi`` totals it, or, where ``unified``, as the host does."""

    memory_mib: int
    source: str
    unified: bool = False

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.memory_mib * MIB


# 128 GB of LPDDR5x less what the firmware keeps; the others as nvidia-smi's memory.total says.
GPUS = {
    "a100-40": GpuKind(40960, "nvidia-smi, A100 40GB"),
    "a100-80": GpuKind(81920, "nvidia-smi, A100 80GB"),
    "b200": GpuKind(183359, "nvidia-smi, B200"),
    "gb10": GpuKind(122502, "MemTotal of a DGX Spark", unified=True),
    "h100": GpuKind(81559, "nvidia-smi, H100 80GB HBM3"),
    "h200": GpuKind(143771, "nvidia-smi, H200"),
    "l4": GpuKind(23034, "nvidia-smi, L4"),
    "l40s": GpuKind(46068, "nvidia-smi, L40S"),
    "rtx4090": GpuKind(24564, "nvidia-smi, RTX 4090"),
    "rtx5090": GpuKind(32607, "nvidia-smi, RTX 5090"),
}
