"""The container that something runs in, and the Docker engine of a machine. None is "not known" in every field."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContainerFacts:
    """What limits a process here. ``inside`` is the kind of container (docker, podman, kubernetes), empty on a host."""

    inside: str | None = None
    capabilities: frozenset[str] | None = None  # effective, by name: IPC_LOCK
    seccomp: str | None = None  # disabled, strict or filter
    apparmor: str | None = None
    host_network: bool | None = None
    user_namespace: bool | None = None
    pids_max: int | None = None  # None also where there is no limit: see pids_limited
    pids_limited: bool | None = None
    rdma_max: str | None = None  # the rdma controller's limits
    memory_max: int | None = None  # bytes
    pci_visible: bool | None = None
    libibverbs: str | None = None  # its path or version; empty where there is none
    providers: tuple[str, ...] | None = None  # libmlx5-rdmav34.so, ...


@dataclass(frozen=True)
class Image:
    """A container image; ``config`` is its config digest (`Id`), ``layers`` the digests of its layers."""

    name: str
    config: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DockerFacts:
    """The Docker engine. ``installed`` False where there is no docker program."""

    installed: bool | None = None
    version: str | None = None
    running: bool | None = None
    trouble: str = ""
    runtimes: tuple[str, ...] | None = None
    default_runtime: str | None = None
    compose: str | None = None
    cgroup_driver: str | None = None
    toolkit: str | None = None  # nvidia-ctk --version
    cdi: bool | None = None
    images: tuple[Image, ...] | None = None
