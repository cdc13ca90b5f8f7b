"""The plan of a container deployment: every key of its compose file, and every variable of its ``.env``, with a reason.

What Docker Compose calls a key is a :class:`Key` here, nested as in the file. ``render/compose.py`` turns it into text;
``docs/reference/compose.md`` is made from the same reasons.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from shoal.plan.variables import Section, settings, variables

Role = Literal["worker", "head"]
Profile = Literal["nvidia-rdma", "nvidia-tcp", "cpu"]
ROLES: tuple[Role, ...] = get_args(Role)
PROFILES: tuple[Profile, ...] = get_args(Profile)

IMAGE = "nvcr.io/nvidia/vllm:25.09-py3"
PYZ = "/opt/shoal/shoal.pyz"
STATE, CACHE, RUN = "/var/lib/shoal", "/var/cache/shoal", "/run/shoal"
MODELS, REGISTRY = "/models", "/etc/shoal/models.yaml"
# `exec`, so that a signal reaches shoal; `$$` is how a compose file writes `$`. NVIDIA's entry point sets up its CUDA
# compatibility libraries, and then runs what it is given. Where shoal.pyz is missing, docker-compose 1.29 refuses to
# start; newer Compose makes a folder of that name, unless told by `create_host_path`, which 1.29 does not know.
ENTRY = f"""\
[ -f {PYZ} ] || {{ echo "shoal.pyz is no file: see README.md"; sleep 60; exit 78; }}
e=/opt/nvidia/nvidia_entrypoint.sh; [ -x "$$e" ] || e=
exec $$e python3 {PYZ} "$$@"
"""


@dataclass(frozen=True)
class Key:
    """One key of a compose file; one without a name is an item of a list.

    ``value`` is a scalar, words that are written on one line, or further keys; an empty text is YAML's null. ``anchor``
    names the value for ``*anchor``.
    """

    name: str
    value: "str | int | bool | tuple[str, ...] | tuple[Key, ...]"
    why: str = ""
    anchor: str = ""

    @property
    def keys(self) -> "tuple[Key, ...]":
        """The keys below this one."""
        if not isinstance(self.value, tuple):
            return ()
        return tuple(item for item in self.value if isinstance(item, Key))


@dataclass(frozen=True)
class ContainerPlan:
    """One deployment folder: for which role, on which kind of node, the services and the variables."""

    role: Role
    profile: Profile
    services: tuple[Key, ...]
    variables: tuple[Section, ...]

    def reasons(self) -> Iterator[tuple[str, str, str]]:
        """Path, value and reason of every key that has one; the service's name is left out of the path."""
        for service in self.services:
            yield from _reasons("", service.keys)


def _reasons(path: str, keys: tuple[Key, ...]) -> Iterator[tuple[str, str, str]]:
    for key in keys:
        here = f"{path}.{key.name}".strip(".")
        if key.why:
            yield here, _shown(key), key.why
        yield from _reasons(here, key.keys)


def _shown(key: Key) -> str:
    """The value on one line: words, or the keys below that have no reason of their own."""
    if isinstance(key.value, bool):
        return str(key.value).lower()
    if not isinstance(key.value, tuple):
        return "..." if "\n" in str(key.value) else str(key.value)
    if not key.keys:
        return " ".join(str(word) for word in key.value)
    return ", ".join(f"{item.name}: {_shown(item)}" if item.name else _shown(item) for item in key.keys if not item.why)


def plan_container(role: Role, profile: Profile) -> ContainerPlan:
    """The deployment of one role on one kind of node; the head has the engine's supervisor besides."""
    why, head = "the node's agent: it runs and watches this node's Ray", role == "head"
    node = Key("ray-node", _node(role, profile), why, "ray-node" if head else "")
    services = (node, _engine()) if head else (node,)
    return ContainerPlan(role, profile, services, variables(role, rdma=profile == "nvidia-rdma", gpu=profile != "cpu"))


def _node(role: Role, profile: Profile) -> tuple[Key, ...]:
    rdma, gpu = profile == "nvidia-rdma", profile != "cpu"
    return (
        *_identity(role),
        *_program(),
        *(_gpu() if gpu else ()),
        *((_devices(),) if rdma else ()),
        _volumes(rdma=rdma, head=role == "head"),
        Key("env_file", (Key("", ".env"),), "everything set in .env reaches the agent, named below or not"),
        _environment(role, rdma=rdma, gpu=gpu),
        *_rights(rdma=rdma, gpu=gpu),
        _health("agent"),
        *_life(),
    )


def _identity(role: Role) -> tuple[Key, ...]:
    return (
        Key("image", f"${{SHOAL_IMAGE:-{IMAGE}}}", "any vLLM image, with Ray or without; the same one on every node"),
        Key("container_name", f"ray-${{RAY_MODE:-{role}}}", "one Ray node per machine: a second one would be refused"),
        Key("network_mode", "host", "Ray, NCCL and RDMA need the machine's own addresses and interfaces"),
        Key("ipc", "host", "Ray and vLLM's ranks share /dev/shm across containers; Docker's own 64 MB are too small"),
    )


def _program() -> tuple[Key, ...]:
    words = tuple(Key("", word) for word in ("sh", "-c", ENTRY, "shoal"))
    return (
        Key("entrypoint", words, "shoal, through the image's own entry point where it has one"),
        Key("command", ("agent",), "what shoal.pyz is to run here"),
        Key("init", value=True, why="a first process that reaps what Ray leaves, and passes signals on"),
    )


def _gpu() -> tuple[Key, ...]:
    device = (Key("driver", "nvidia"), Key("count", "all"), Key("capabilities", ("gpu",)))
    listed = Key("devices", (Key("", device),), "all GPUs; the NVIDIA Container Toolkit must be installed")
    return (
        Key("runtime", "nvidia", "brings the driver's libraries into the container"),
        Key("deploy", (Key("resources", (Key("reservations", (listed,)),)),)),
    )


def _devices() -> Key:
    return Key(
        "devices",
        (
            Key("", "/dev/infiniband/rdma_cm", "the connection manager; a start fails here where there is no RDMA"),
            Key("", "/dev/infiniband/uverbs0", "the first HCA"),
            Key("", "/dev/infiniband:/dev/infiniband", "and all others"),
        ),
        "RDMA from inside the container",
    )


def _bind(source: str, target: str) -> tuple[Key, ...]:
    return (
        Key("type", "bind"),
        Key("source", source),
        Key("target", target),
        Key("read_only", value=True),
    )


def _volumes(*, rdma: bool, head: bool) -> Key:
    hcas = (
        Key("", "/sys/class/infiniband:/sys/class/infiniband:ro", "the HCAs and their GID tables"),
        Key("", "/sys/class/net:/sys/class/net:ro", "which interface belongs to which HCA"),
        Key("", "/etc/rdma:/etc/rdma:ro", "the machine's RDMA settings"),
    )
    why = "shoal itself; in this long form docker-compose refuses to start where the file is missing"
    registry = Key("", _bind("./models.yaml", REGISTRY), "the model registry: read at each start of the engine")
    return Key(
        "volumes",
        (
            Key("", _bind("./shoal.pyz", PYZ), why),
            *((registry,) if head else ()),
            *(hcas if rdma else ()),
            Key("", "/tmp/ray:/tmp/ray", "Ray's sessions: the containers of one node share its sockets"),
            Key("", f"./run:{RUN}", "vLLM's sockets: engine and ranks of one node share these too"),
            Key("", f"${{MODEL_CACHE:-./models}}:{MODELS}", "models, as the Hugging Face hub keeps them"),
            Key(
                "",
                "${HARMONY_ENCODINGS:-./encodings}:/encodings:ro",
                "offline encodings for gpt-oss models; may be empty",
            ),
            Key("", f"./state:{STATE}", "logs, and on the head the API key"),
            Key("", f"./cache:{CACHE}", "what vLLM, Triton and FlashInfer compile: minutes at each start without it"),
        ),
    )


def _environment(role: Role, *, rdma: bool, gpu: bool) -> Key:
    listed = tuple(Key(item.name, item.value, item.why) for item in settings(role, rdma=rdma, gpu=gpu))
    anchor = "environment" if role == "head" else ""
    return Key("environment", listed, "docs/reference/environment.md has all variables", anchor)


def _rights(*, rdma: bool, gpu: bool) -> tuple[Key, ...]:
    if not gpu:
        return ()
    stack = Key("stack", 67108864, "64 MiB, as NVIDIA asks of its images")
    nice = Key("", "SYS_NICE", "memory and threads on the GPU's own NUMA node")
    if not rdma:
        return (Key("ulimits", (stack,)), Key("cap_add", (nice,)))
    return (
        Key("security_opt", (Key("", "apparmor:unconfined"),), "Docker's AppArmor profile hides parts of /sys from us"),
        Key("ulimits", (Key("memlock", -1, "RDMA pins the memory that it transfers"), stack)),
        Key(
            "cap_add",
            (
                Key("", "IPC_LOCK", "to pin memory"),
                nice,
                Key("", "SYS_RESOURCE", "to raise limits for Ray's children"),
            ),
            "these instead of `privileged`, which is never needed",
        ),
    )


def _health(program: str) -> Key:
    return Key(
        "healthcheck",
        (
            Key("test", ("CMD", "python3", PYZ, "health", program)),
            Key("interval", "10s"),
            Key("timeout", "5s"),
            Key("retries", 2),
            Key("start_period", "20s"),
        ),
        "asks the program itself, on its own port; shown by `docker ps`. Malformed settings show within their minute",
    )


def _life() -> tuple[Key, ...]:
    size = (Key("max-size", "50m"), Key("max-file", "5"))
    return (
        Key("restart", "unless-stopped", "also after a reboot; shoal waits for its head by itself"),
        Key("stop_grace_period", "60s", "time to drain: the node leaves the cluster before it ends"),
        Key(
            "logging",
            (Key("driver", "json-file"), Key("options", size)),
            "logs do not fill the disk: five files of 50 MB",
        ),
    )


def _engine() -> Key:
    extra = (
        Key("<<", "*environment"),
        Key("SHOAL_NODE_NAME", "engine", "shown in status and logs"),
    )
    return Key(
        "vllm",
        (
            Key("<<", "*ray-node", "all that ray-node has, but for the lines below"),
            Key("container_name", "vllm", "the engine's supervisor; vLLM's ranks live in the nodes' containers"),
            Key("command", ("serve",), "what shoal.pyz is to run here"),
            Key("environment", extra),
            _health("serve"),
            Key("depends_on", (Key("", "ray-node"),), "started after its node; the gate waits for the others"),
        ),
        "the engine: waits for the nodes, starts vLLM, watches it",
    )
