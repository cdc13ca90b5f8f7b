"""Where NCCL tells what it chose: a file of each process, so that the transport can be read while the engine runs."""

from collections.abc import Mapping
from pathlib import Path

from shoal.nccl.environment import effective
from shoal.plan.node import Setting

FOLDER = "nccl"


def nccl_files(env: Mapping[str, str], folder: Path) -> tuple[Setting, ...]:
    """The settings of a node whose NCCL writes below ``folder``; none where somebody has set a NCCL_DEBUG* himself."""
    if any(name.startswith("NCCL_DEBUG") for name in effective(env)):
        return ()
    return (
        Setting("NCCL_DEBUG", "INFO", "NCCL says which network, devices and transports it uses"),
        Setting("NCCL_DEBUG_SUBSYS", "INIT,NET,ENV", "what tells the transport, and nothing for each operation"),
        Setting("NCCL_DEBUG_FILE", str(folder / "%h.%p.log"), "a file for each process, removed with the run"),
    )
