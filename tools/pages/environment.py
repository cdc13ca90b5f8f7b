"""The pages about what a node reads and where it listens: environment and ports."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pages.markdown import code, page, table
from shoal.plan.local import LocalSpec, plan_local
from shoal.plan.node import Setting
from shoal.plan.parallel import on_cpu
from shoal.plan.ports import SPARE, node_ports
from shoal.plan.push import PORT as PUSH_PORT
from shoal.spec.env_table import CONTAINER, GPU, MODELS, NODE, RAY, UNREAD
from shoal.spec.env_table_nccl import FABRIC, NCCL
from shoal.spec.registry import builtin
from shoal.spec.variable import Reader, Variable

READERS: Mapping[Reader, str] = {
    "agent": "the agent",
    "serve": "the supervisor",
    "compose": "the container",
    "nccl": "NCCL",
    "gloo": "Gloo",
    "ucx": "UCX",
    "ray": "Ray",
    "vllm": "vLLM",
    "cuda": "CUDA",
    "hub": "Hugging Face",
    "nothing": "nothing",
}
GROUPS: Mapping[str, tuple[Variable, ...]] = {
    "The node and the engine": NODE,
    "The container": CONTAINER,
    "NCCL": NCCL,
    "Between the nodes": FABRIC,
    "GPUs": GPU,
    "Ray": RAY,
    "Models": MODELS,
    "Found in hand-written files": UNREAD,
}


def environment() -> str:
    """Every variable of a node's ``.env``."""
    return page(
        "Environment",
        "The node agent and the engine supervisor have no options. They read these variables, and refuse to start "
        "where one of theirs is wrong:\nthey say which, and end with code 78. An unknown name that begins with "
        "`SHOAL_` is refused too, with the nearest right one.\nAn empty variable counts as absent.\n\n"
        "One `.env` holds them all. `shoal env check FILE` looks at one before anything reads it, and knows the "
        "`NCCL_*` of NCCL 2.18 to 2.32.\n"
        "`auto` is the same as empty: NCCL chooses.\n"
        "*Per node* means that the value differs between nodes: it never travels from the head to a worker. Nor does "
        "a secret.\n",
        *(f"## {title}\n\n{variable_table(rows)}" for title, rows in GROUPS.items()),
        "## Read by the command line\n",
        table(
            ("variable", "meaning"),
            (
                (code("SHOAL_STATE_DIR"), "state folder; default: `$XDG_STATE_HOME/shoal`, or `~/.local/state/shoal`"),
                (code("SHOAL_CACHE_DIR"), "cache folder; default: `$XDG_CACHE_HOME/shoal`, or `~/.cache/shoal`"),
            ),
        ),
        "`shoal up --local` hands its own environment on to the agents and to the supervisor.\n"
        "A variable of the tables above that the next one does not name can be set there, "
        "for example `SHOAL_LOG=json`.\n",
        "## Set by `shoal up --local`\n",
        "These are set for every process, whatever the environment held before. "
        "The values are those of two nodes on a machine of eight cores.\n",
        *local_settings(),
    )


def variable_table(rows: Iterable[Variable]) -> str:
    """Rows of the table, for one page."""
    return table(
        ("variable", "read by", "type", "default", "per node", "meaning"),
        (
            (
                code(row.name),
                ", ".join(READERS[reader] for reader in row.readers),
                row.type,
                "required" if row.default is None else code(row.default),
                "yes" if row.per_node else "",
                row.meaning + (f" (since {row.since})" if row.since else ""),
            )
            for row in rows
        ),
    )


def sample() -> LocalSpec:
    """Two nodes on a machine of eight cores."""
    return LocalSpec(
        nodes=2,
        model=builtin()["smollm2"],
        model_path="MODEL",
        parallel=on_cpu(2, None),
        run_id="RUN_ID",
        temp_dir=Path("/tmp/shoal-XXXXXXXX"),  # noqa: S108 (shown, not used)
        state_dir=Path("~/.local/state/shoal/local"),
        cache_dir=Path("~/.cache/shoal"),
        cores=8,
    )


def local_settings() -> Iterator[str]:
    """The settings of a local cluster: a worker's agent, then what the supervisor has besides."""
    plan = plan_local(sample())
    common = {setting.name for setting in plan.nodes[1].settings}
    yield "### The agent of the first worker\n"
    yield setting_table(plan.nodes[1].settings)
    yield "### The supervisor, besides\n"
    yield setting_table(setting for setting in plan.engine.settings if setting.name not in common)


def setting_table(settings: Iterable[Setting]) -> str:
    """Settings with their reasons."""
    return table(("variable", "value", "why"), ((code(item.name), code(item.value), item.why) for item in settings))


def ports() -> str:
    """What listens where."""
    plan = plan_local(sample())
    block = node_ports(0)
    return page(
        "Ports",
        "What `shoal up --local` listens on with two nodes and default options. All of these must be free before "
        "anything is started.\n",
        table(
            ("address", "port", "what", "moved by"),
            ((address, str(port), what, code(mover(what))) for address, port, what in plan.listening()),
        ),
        f"Each further node has the next address, and the next {block.max_worker + 1} ports of Ray's. "
        f"The ports {block.min_worker} to {block.max_worker} of each block are for Ray's worker processes. "
        "A worker's node manager has the first port\n"
        f"when it starts for the first time, and then {SPARE[0]} to {SPARE[-1]} of its block in turn.\n\n"
        "Ray and torch open further sockets whose address or port cannot be chosen: "
        "[SECURITY.md](../../SECURITY.md) names them.\n\n"
        "On several machines every node has the first block, and port 8700, on its own address. Ray's GCS is at "
        f"6379 unless\n`RAY_ADDRESS` says otherwise, and {PUSH_PORT} is open while models or images are pushed. "
        "[Close the nodes' ports](../how-to/close-the-ports.md)\nlists all of them.\n",
    )


def mover(what: str) -> str:
    """The option of ``shoal up`` that moves this port."""
    if what == "the API":
        return "--port"
    return "--port-base" if what.startswith("Ray") else "--agent-port"
