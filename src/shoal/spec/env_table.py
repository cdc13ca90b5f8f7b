"""Every variable that a node's ``.env`` may hold, whoever reads it.

Made from it: the validation of shoal's own settings, ``shoal env check``, the rendered ``.env`` files, what Ray's
workers inherit, and the reference page.
"""

from shoal.spec.env_table_nccl import FABRIC, NCCL
from shoal.spec.variable import Reader, Variable

_BOTH: tuple[Reader, ...] = ("agent", "serve")

CONTAINER = (
    Variable("SHOAL_IMAGE", "text", "nvcr.io/nvidia/vllm:25.09-py3", ("compose",), "the vLLM image, of any registry"),
)

NODE = (
    Variable(
        "RAY_MODE",
        "choice",
        None,
        ("compose", "agent"),
        "`head` or `worker`",
        "mode",
        choices=("head", "worker"),
        per_node=True,
    ),
    Variable(
        "VLLM_HOST_IP",
        "address",
        None,
        ("agent", "serve", "vllm"),
        "this node's fabric address; must be local to this machine",
        "address",
        per_node=True,
    ),
    Variable(
        "RAY_ADDRESS",
        "endpoint",
        "",
        ("agent", "serve", "ray", "vllm"),
        "the head as `ADDRESS:PORT`; on the head: derived, port 6379",
        "ray_address",
    ),
    Variable(
        "SHOAL_NODE_NAME", "text", "", _BOTH, "name shown for this node; default: the host name", "name", per_node=True
    ),
    Variable(
        "SHOAL_NUM_GPUS",
        "integer",
        "",
        _BOTH,
        "what `ray start --num-gpus` offers; default: the GPUs seen",
        "num_gpus",
        low=0,
        per_node=True,
    ),
    Variable(
        "SHOAL_NUM_CPUS",
        "integer",
        "",
        ("agent",),
        "what `ray start --num-cpus` offers; default: Ray's count",
        "num_cpus",
        low=0,
        per_node=True,
    ),
    Variable(
        "SHOAL_PORT_BASE",
        "integer",
        "27000",
        ("agent",),
        "first of the 100 ports that this node's Ray uses",
        "port_base",
        low=1024,
        high=65436,
        per_node=True,
    ),
    Variable("SHOAL_AGENT_PORT", "port", "8700", _BOTH, "port of the agent's endpoint on every node", "agent_port"),
    Variable("SHOAL_SERVE_PORT", "port", "8701", _BOTH, "port of the supervisor's endpoint", "serve_port"),
    Variable(
        "SHOAL_RAY_TEMP_DIR",
        "path",
        "/tmp/ray",
        ("agent",),
        "Ray's folder, short: socket paths end at 107 bytes",
        "temp_dir",
        per_node=True,
    ),
    Variable(
        "SHOAL_OBJECT_STORE_MB",
        "integer",
        "200",
        ("agent",),
        "cap of Ray's object store, MiB",
        "object_store_mb",
        low=75,
    ),
    Variable(
        "SHOAL_JOIN_TIMEOUT",
        "number",
        "120",
        _BOTH,
        "seconds until a join is given up, and begun again",
        "join_timeout",
        above=0,
    ),
    Variable(
        "SHOAL_LOST_AFTER",
        "number",
        "30",
        _BOTH,
        "seconds of silence until a node counts as lost; it is suspect within 2",
        "lost_after",
        above=0,
    ),
    Variable(
        "SHOAL_WEDGED_AFTER",
        "number",
        "60",
        ("serve",),
        "seconds without a token on request, and without any progress of vLLM's, until the engine is restarted",
        "wedged_after",
        above=0,
    ),
    Variable(
        "SHOAL_DRAIN_TIMEOUT",
        "number",
        "60",
        ("serve",),
        "seconds that running requests have to finish before a planned restart",
        "drain_timeout",
        above=0,
    ),
    Variable(
        "SHOAL_RESTARTS",
        "integer",
        "5",
        _BOTH,
        "restarts within `SHOAL_RESTART_WINDOW` before the breaker opens",
        "restarts",
        low=0,
    ),
    Variable(
        "SHOAL_RESTART_WINDOW",
        "number",
        "600",
        _BOTH,
        "seconds after which a restart is forgotten: it no longer counts, and no longer lengthens the pause",
        "restart_window",
        above=0,
    ),
    Variable(
        "SHOAL_SHARE_GPUS",
        "integer",
        "0",
        ("agent",),
        "1: take GPUs that other processes use too; else the agent refuses to start on them",
        "share_gpus",
        low=0,
        high=1,
        per_node=True,
    ),
    Variable(
        "SHOAL_PREFLIGHT_IGNORE",
        "text",
        "",
        ("agent",),
        "ids of checks, with commas between, whose failure does not keep the agent from starting",
        "preflight_ignore",
        per_node=True,
    ),
    Variable(
        "SHOAL_EXPECT",
        "nodes",
        "",
        ("serve",),
        "the nodes the gate waits for: `ADDRESS[:GPUS],...`; default: this node alone",
        "expect",
    ),
    Variable(
        "SHOAL_MODELS_FILE",
        "path",
        "",
        ("serve",),
        "the model registry, beside the built-in one",
        "models_file",
    ),
    Variable(
        "SHOAL_API_HOST",
        "address",
        "",
        ("serve",),
        "address that the API listens on; default: VLLM_HOST_IP. `0.0.0.0`: all of this machine's",
        "api_host",
    ),
    Variable("SHOAL_API_PORT", "port", "8000", ("serve",), "port of the API", "api_port"),
    Variable(
        "SHOAL_TENSOR_PARALLEL",
        "integer",
        "",
        ("serve",),
        "ranks that share each layer; default: the GPUs of one node",
        "tensor_parallel",
        low=1,
    ),
    Variable(
        "SHOAL_PIPELINE_PARALLEL",
        "integer",
        "",
        ("serve",),
        "stages that share the layers; default: the number of nodes",
        "pipeline_parallel",
        low=1,
    ),
    Variable(
        "SHOAL_ENGINE_PLAN",
        "path",
        "",
        ("serve",),
        "JSON file with the engine's arguments and environment, in place of MODEL_NAME",
        "engine_plan",
    ),
    Variable(
        "SHOAL_EXECUTOR",
        "choice",
        "auto",
        _BOTH,
        "what holds the ranks on several nodes: Ray, or vLLM's own processes (`mp`); `auto`: Ray where it is installed",
        "executor",
        choices=("auto", "ray", "mp"),
    ),
    Variable("SHOAL_API_KEY_FILE", "path", "", _BOTH, "file with the API key, mode 0600", "api_key_file"),
    Variable("SHOAL_STATE_DIR", "path", "", _BOTH, "where shoal keeps its state and logs", "state_dir"),
    Variable(
        "SHOAL_CACHE_DIR", "path", "", _BOTH, "where shoal keeps converted models and compile caches", "cache_dir"
    ),
    Variable("SHOAL_RUN_ID", "text", "", _BOTH, "marks the processes of one cluster", "run_id"),
    Variable("SHOAL_LOG", "choice", "story", _BOTH, "`story` or `json`", "log", choices=("story", "json")),
)

GPU = (
    Variable(
        "CUDA_VISIBLE_DEVICES", "text", "", ("cuda", "ray"), "GPUs that processes see, by index or UUID", per_node=True
    ),
    Variable(
        "NVIDIA_VISIBLE_DEVICES",
        "text",
        "",
        ("compose",),
        "GPUs that the container gets: `all`, indices or UUIDs",
        per_node=True,
    ),
    Variable(
        "NVIDIA_DRIVER_CAPABILITIES",
        "text",
        "",
        ("compose",),
        "driver libraries that the container gets: `all`, or a list",
    ),
)

RAY = (
    Variable(
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",
        "flag",
        "",
        ("ray",),
        "1: Ray leaves CUDA_VISIBLE_DEVICES of its workers alone",
    ),
    Variable("RAY_DISABLE_DOCKER_CPU_WARNING", "flag", "", ("ray",), "1: no warning about CPU limits of containers"),
    Variable(
        "RAY_AUTH_MODE",
        "text",
        "",
        ("ray",),
        "`token`: Ray refuses whoever has no token; `disabled`: it does not",
        since="Ray 2.52",
    ),
    Variable("RAY_AUTH_TOKEN_PATH", "path", "", ("ray",), "file with Ray's token, mode 0600", since="Ray 2.52"),
    Variable(
        "RAY_AUTH_TOKEN",
        "secret",
        "",
        ("ray",),
        "refused by the agent: every task would inherit it. Use RAY_AUTH_TOKEN_PATH",
        since="Ray 2.52",
    ),
    Variable("RAY_USAGE_STATS_ENABLED", "flag", "", ("ray",), "0: nothing is sent anywhere"),
)

MODELS = (
    Variable("HF_HOME", "path", "", ("hub",), "where models and the hub's cache lie"),
    Variable(
        "HUGGING_FACE_HUB_TOKEN",
        "secret",
        "",
        ("hub",),
        "token of the hub: handed on by file, never logged, shown or copied",
    ),
    Variable("HF_TOKEN", "secret", "", ("hub",), "the same, by its newer name"),
    Variable("HF_HUB_OFFLINE", "flag", "", ("hub",), "1: nothing is downloaded"),
    Variable(
        "TIKTOKEN_ENCODINGS_BASE", "path", "", ("vllm",), "folder with the encodings that gpt-oss models need offline"
    ),
    Variable("HARMONY_ENCODINGS", "path", "", ("compose",), "the same folder on the host, mounted read-only"),
    Variable(
        "MODEL_NAME",
        "text",
        "",
        ("serve",),
        "what the head serves: a key of the registry, the path of a folder, or `ORGANISATION/MODEL` of the hub",
        "model_name",
    ),
    Variable("VLLM_API_KEY", "secret", "", ("vllm",), "never handed to a process; use SHOAL_API_KEY_FILE"),
)

_UNREAD = "found in hand-written files; accepted, and read by nothing here"
UNREAD = (
    Variable("MASTER_ADDR", "text", "", ("nothing",), f"{_UNREAD}: vLLM on Ray chooses the address itself"),
    Variable("MASTER_PORT", "text", "", ("nothing",), f"{_UNREAD}: vLLM on Ray chooses the port itself"),
    Variable("RANK", "text", "", ("nothing",), f"{_UNREAD}: vLLM numbers the ranks", per_node=True),
    Variable("WORLD_SIZE", "text", "", ("nothing",), f"{_UNREAD}: it follows from the parallel sizes"),
    Variable("RAY_VISIBLE_DEVICES", "text", "", ("nothing",), f"{_UNREAD}: set CUDA_VISIBLE_DEVICES", per_node=True),
    Variable("NCCL_TIMEOUT", "text", "", ("nothing",), f"{_UNREAD}: no NCCL has it"),
)

VARIABLES: tuple[Variable, ...] = (*CONTAINER, *NODE, *NCCL, *FABRIC, *GPU, *RAY, *MODELS, *UNREAD)
BY_NAME = {row.name: row for row in VARIABLES}

# Interfaces that follow NCCL_SOCKET_IFNAME unless set.
FOLLOW = ("GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES", "TP_SOCKET_IFNAME")
# What Ray's workers must have where VLLM_RAY_WORKER_ENV_VARS is not set.
WORKER_DEFAULT = tuple(row.name for row in NCCL)
# Differ between nodes: the head's values must never reach a worker. The last of them are set by shoal itself.
PER_NODE = (
    *(row.name for row in VARIABLES if row.per_node),
    "OMP_NUM_THREADS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "VLLM_CONFIG_ROOT", "NCCL_DEBUG_FILE",
)  # fmt: skip
