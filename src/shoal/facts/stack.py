"""The software that serves: Python, torch, NCCL, Ray, vLLM, models; and what of it runs now. None is "not known"."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Model:
    """A model on disk: size in bytes, and a digest of its safetensors index (or of its one weight file's header)."""

    path: str
    size: int
    index_digest: str | None = None
    missing: tuple[str, ...] = ()  # files that the index names and that are not there


@dataclass(frozen=True)
class RayProcess:
    """A process of Ray's or vLLM's."""

    pid: int
    kind: str  # raylet, gcs_server, vllm, ray
    user: str = ""
    command: str = ""


@dataclass(frozen=True)
class StackFacts:
    """Versions as the environment that would serve has them; ``nccl_libraries`` are paths that a process could load."""

    python: str | None = None
    torch: str | None = None
    cuda_runtime: str | None = None
    nccl: str | None = None
    nccl_libraries: tuple[str, ...] | None = None
    ray: str | None = None
    vllm: str | None = None
    transformers: str | None = None
    plugin: str | None = None  # the network plugin's file that would be loaded; empty where none is
    perftest: bool | None = None  # ib_write_bw is installed
    py_spy: bool | None = None
    processes: tuple[RayProcess, ...] | None = None
    models: tuple[Model, ...] | None = None
    nccl_conf: Mapping[str, str] = field(default_factory=dict)  # /etc/nccl.conf and ~/.nccl.conf, merged
