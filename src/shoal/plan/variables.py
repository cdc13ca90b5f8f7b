"""The variables of a container deployment: which ones the compose file passes on, and what ``.env.example`` says."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shoal.plan.node import Setting

Role = Literal["worker", "head"]


@dataclass(frozen=True)
class Variable:
    """One variable of a deployment.

    ``example`` is written into ``.env.example`` to be edited; a variable without one stands there as a comment, with
    its ``default``. ``fixed`` is a value inside the container that no ``.env`` changes.
    """

    name: str
    meaning: str
    default: str = ""
    example: str = ""
    fixed: str = ""


@dataclass(frozen=True)
class Section:
    """Variables under one heading of ``.env.example``."""

    title: str
    variables: tuple[Variable, ...]


FABRIC = "this node's address on the fabric"
IMAGE = Variable("SHOAL_IMAGE", "the vLLM image; the same on every node", "nvcr.io/nvidia/vllm:25.09-py3")
MODELS = Variable("MODEL_CACHE", "folder of this machine with models, as the Hugging Face hub keeps them", "./models")
ENCODINGS = Variable(
    "HARMONY_ENCODINGS", "folder of this machine with offline encodings; seen as /encodings", "./encodings"
)
# Compose's own: they choose the image and folders of the host, and mean nothing inside.
HOST_ONLY = {IMAGE.name, MODELS.name, ENCODINGS.name}

SHARED = Variable("SHOAL_SHARE_GPUS", "1: take GPUs that other processes use too", "0")
SEEN = Variable("SHOAL_NUM_GPUS", "GPUs offered to Ray; empty: all that are seen")
LOGICAL = Variable("SHOAL_NUM_GPUS", "one rank per node, which Ray counts as a GPU", "1")
NODE = (
    Variable("SHOAL_NODE_NAME", "name shown for this node; empty: the host name"),
    Variable("SHOAL_NUM_CPUS", "CPUs offered to Ray; empty: all"),
    Variable(
        "SHOAL_PREFLIGHT_IGNORE", "checks, with commas between, whose failure does not keep the agent from starting"
    ),
    Variable("SHOAL_EXECUTOR", "what holds the ranks: `ray`, `mp` (vLLM alone), or `auto`: Ray where it is", "auto"),
    Variable("SHOAL_PORT_BASE", "first of the 100 ports that this node's Ray uses", "27000"),
    Variable("SHOAL_AGENT_PORT", "port of the agent; the same on every node", "8700"),
    Variable("SHOAL_OBJECT_STORE_MB", "cap of Ray's object store, MiB; vLLM needs next to none", "200"),
    Variable("SHOAL_JOIN_TIMEOUT", "seconds until a join is given up, and begun again", "120"),
    Variable("SHOAL_LOST_AFTER", "seconds of silence until a node counts as lost", "30"),
    Variable("SHOAL_RESTARTS", "restarts within ten minutes before shoal gives up", "5"),
    Variable("SHOAL_LOG", "`story` for people, `json` for machines", "story"),
)
ENGINE = (
    Variable("SHOAL_API_HOST", "address of the API; empty: VLLM_HOST_IP. 0.0.0.0: all addresses of this machine"),
    Variable("SHOAL_API_PORT", "port of the API", "8000"),
    Variable("SHOAL_TENSOR_PARALLEL", "ranks that share each layer; empty: the GPUs of one node"),
    Variable("SHOAL_PIPELINE_PARALLEL", "stages that share the layers; empty: the number of nodes"),
    Variable("SHOAL_SERVE_PORT", "port of the supervisor", "8701"),
    Variable(
        "SHOAL_ENGINE_PLAN", "JSON file, as the container sees it, with the engine's arguments; MODEL_NAME is not read"
    ),
)
RAY = (
    Variable("RAY_AUTH_MODE", "`token`: Ray refuses whoever has no token (Ray 2.52 or newer)"),
    Variable("RAY_AUTH_TOKEN_PATH", "file with the token, as the container sees it; the same token on every node"),
    Variable("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "`1`: Ray leaves CUDA_VISIBLE_DEVICES as it is"),
    Variable("RAY_DISABLE_DOCKER_CPU_WARNING", "Ray's warning about CPU shares says nothing here", "1"),
    Variable("VLLM_RAY_WORKER_ENV_VARS", "comma list of variables that Ray's workers must have"),
)
NCCL = (
    Variable("NCCL_SOCKET_IFNAME", "the fabric's interface; empty: chosen at start"),
    Variable("NCCL_CROSS_NIC", "0: rings stay on one rail; empty: NCCL decides"),
    Variable("NCCL_DEBUG", "`INFO` shows what NCCL chose"),
    Variable("NCCL_DEBUG_SUBSYS", "which parts of NCCL speak, such as `INIT,NET`"),
    Variable("GLOO_SOCKET_IFNAME", "Gloo's interface, one plain name"),
    Variable("TP_SOCKET_IFNAME", "TensorPipe's interface, one plain name"),
)
RDMA = (
    Variable("NCCL_IB_HCA", "the HCAs, exact names, such as `=rocep1s0f1`; empty: chosen at start"),
    Variable("NCCL_NET_GDR_LEVEL", "how far from the HCA a GPU may be for GPUDirect; empty: NCCL decides"),
    Variable("NCCL_IB_DISABLE", "1: no RDMA at all; a number, not `true`"),
    Variable("NCCL_IB_GID_INDEX", "leave empty with NCCL 2.21 or newer: it finds the right GID itself"),
    Variable("NCCL_NET_PLUGIN", "path of a network plugin in the image; it chooses devices and GID in NCCL's place"),
    Variable("NCCL_IB_TC", "traffic class: DSCP 26 with ECN bits 10", "106"),
    Variable("NCCL_IB_SL", "service level; on RoCE it needs a VLAN tag to mean anything", "3"),
    Variable("NCCL_IB_TIMEOUT", "patience per packet: 4.096 us x 2^23, 34 s", "23"),
    Variable("NCCL_IB_RETRY_CNT", "tries per packet", "7"),
    Variable("UCX_NET_DEVICES", "UCX's devices, plain names"),
)
GPU = (
    Variable("NVIDIA_VISIBLE_DEVICES", "which GPUs the container sees", "all"),
    Variable("NVIDIA_DRIVER_CAPABILITIES", "which libraries of the driver it sees", "compute,utility"),
    Variable("CUDA_VISIBLE_DEVICES", "which of these CUDA uses; empty: all"),
)
HUB = (
    Variable("HF_HUB_OFFLINE", "1: never ask the Hugging Face hub"),
    Variable("HUGGING_FACE_HUB_TOKEN", "for gated models; a secret: chmod 600 .env"),
    ENCODINGS,
    Variable("TIKTOKEN_ENCODINGS_BASE", "`/encodings`: gpt-oss models then need no network for them"),
)
NO_RDMA = Variable("NCCL_IB_DISABLE", "this deployment uses no RDMA", fixed="1")
INSIDE = (
    Variable("HF_HOME", "where the container sees the models", fixed="/models"),
    Variable("SHOAL_STATE_DIR", "logs and keys, kept in ./state", fixed="/var/lib/shoal"),
    Variable("SHOAL_CACHE_DIR", "kept in ./cache", fixed="/var/cache/shoal"),
    Variable("VLLM_RPC_BASE_PATH", "vLLM's sockets, in ./run", fixed="/run/shoal"),
    Variable("VLLM_CACHE_ROOT", "vLLM's compiled graphs, kept", fixed="/var/cache/shoal/vllm"),
    Variable("TORCHINDUCTOR_CACHE_DIR", "torch's compiled kernels, kept", fixed="/var/cache/shoal/inductor"),
    Variable("TRITON_CACHE_DIR", "Triton's compiled kernels, kept", fixed="/var/cache/shoal/triton"),
    Variable("FLASHINFER_WORKSPACE_BASE", "FlashInfer's compiled kernels, kept", fixed="/var/cache/shoal/flashinfer"),
    Variable("RAY_memory_monitor_refresh_ms", "off: on unified memory it would kill ranks", fixed="0"),
    Variable("RAY_USAGE_STATS_ENABLED", "nothing is sent anywhere", fixed="0"),
    Variable("VLLM_NO_USAGE_STATS", "nothing is sent anywhere", fixed="1"),
)
SERVED = (
    Variable("SHOAL_API_KEY_FILE", "made at the first start, mode 0600", fixed="/var/lib/shoal/api.key"),
    Variable("SHOAL_MODELS_FILE", "the model registry, ./models.yaml", fixed="/etc/shoal/models.yaml"),
)


def _edited(role: Role) -> tuple[Variable, ...]:
    """The lines that every user edits: three of them."""
    if role == "worker":
        return (
            Variable("VLLM_HOST_IP", FABRIC, example="192.168.100.2"),
            Variable("RAY_ADDRESS", "the head's address on the fabric, and Ray's port", "", "192.168.100.1:6379"),
            Variable(MODELS.name, MODELS.meaning, MODELS.default, "/data/huggingface"),
        )
    expect = "the nodes that the engine waits for, head included: ADDRESS[:GPUS],..."
    return (
        Variable("VLLM_HOST_IP", FABRIC, example="192.168.100.1"),
        Variable("SHOAL_EXPECT", expect, example="192.168.100.1:1,192.168.100.2:1"),
        Variable(
            "MODEL_NAME",
            "what is served: a key of models.yaml, a folder below /models, or ORGANISATION/MODEL of the hub",
            example="/models/my-model",
        ),
    )


def variables(role: Role, *, rdma: bool, gpu: bool) -> tuple[Section, ...]:
    """All that a user may set in ``.env``, what must be edited first."""
    mode = Variable("RAY_MODE", "this folder's role; it names the container `ray-...`", role, role)
    head = role == "head"
    derived = (Variable("RAY_ADDRESS", "empty: this node's address, port 6379"), MODELS) if head else ()
    sections = (
        Section("Edit these three lines", _edited(role)),
        Section("The deployment", (mode, IMAGE, *derived)),
        Section("The node", (*NODE, SEEN if gpu else LOGICAL)),
        Section("The engine", ENGINE if head else ()),
        Section("Models", HUB),
        Section("Ray", RAY),
        Section("GPUs", (*GPU, SHARED) if gpu else ()),
        Section("The fabric", (*NCCL, *(RDMA if rdma else ())) if gpu else NCCL[4:5]),
    )
    return tuple(section for section in sections if section.variables)


def settings(role: Role, *, rdma: bool, gpu: bool) -> Iterator[Setting]:
    """What the compose file sets in the container, in the spelling of Compose's interpolation."""
    for section in variables(role, rdma=rdma, gpu=gpu):
        for variable in section.variables:
            if variable.name not in HOST_ONLY:
                yield Setting(variable.name, _interpolated(variable), variable.meaning)
    fixed = (*INSIDE, *(SERVED if role == "head" else ()), *((NO_RDMA,) if gpu and not rdma else ()))
    for variable in fixed:
        yield Setting(variable.name, variable.fixed, variable.meaning)


def _interpolated(variable: Variable) -> str:
    # Nothing is demanded here (`:?`): docker-compose 1.29 would print all of the environment, and the agent names what
    # is missing in one line. Without a default it is passed on only where it is set: an empty CUDA_VISIBLE_DEVICES
    # hides every GPU.
    return f"${{{variable.name}:-{variable.default}}}" if variable.default else ""
