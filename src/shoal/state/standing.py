"""What a host says of a cluster's folder on it: releases, what runs, what it has for more."""

from pydantic import BaseModel, ConfigDict


class Told(BaseModel):
    """Base of the parts: a reader passes over what a newer program adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class UnitState(Told):
    """A program that was started there. ``release`` and ``digest`` are empty where none was."""

    runs: bool = False
    pid: int = 0
    ticks: int = 0
    release: str = ""
    digest: str = ""


class DockerSeen(Told):
    """Docker, where containers are asked for; ``image`` is its config digest with those of its layers."""

    error: tuple[str, ...] = ()
    version: str = ""
    compose: tuple[str, ...] = ()
    image: str = ""


class PythonSeen(Told):
    """The Python that would run agent and engine, where there are no containers."""

    error: str = ""
    python: str | None = None
    ray: str | None = None
    vllm: str | None = None


class BootSeen(Told):
    """What the host's cron starts for the cluster at a boot; ``why`` where no cron could. ``asked``: it was seen."""

    asked: bool = False
    why: str = ""
    command: str = ""


class Standing(Told):
    """One host. ``plan`` is the current release's plan as JSON; ``pyz`` and ``secrets`` are digests."""

    home: str
    user: str = ""
    architecture: str = ""
    free: int = 0
    writable: bool = True
    place: str = ""
    current: str = ""
    served: str = ""
    before: str = ""
    releases: tuple[str, ...] = ()
    plan: str = ""
    units: dict[str, UnitState] = {}
    pyz: dict[str, str] = {}
    secrets: dict[str, str] = {}
    docker: DockerSeen = DockerSeen()
    versions: PythonSeen = PythonSeen()
    boot: BootSeen = BootSeen()

    def unit(self, name: str) -> UnitState:
        """What was started under that name."""
        return self.units.get(name, UnitState())
