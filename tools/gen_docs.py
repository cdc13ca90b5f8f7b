#!/usr/bin/env python3
"""Write docs/reference from the sources: each page is made of the tables that the program itself uses.

python tools/gen_docs.py writes the pages; with --check it writes nothing, and ends with code 1 where one is stale.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from click import Group
from click.testing import CliRunner
from pydantic import BaseModel

from shoal import errors
from shoal.errors import ShoalError
from shoal.plan.container import PROFILES, ROLES, plan_container
from shoal.plan.local import LocalSpec, plan_local
from shoal.plan.node import Setting
from shoal.plan.parallel import on_cpu
from shoal.plan.ports import node_ports
from shoal.spec.env_table import CONTAINER, FABRIC, GPU, MODELS, NCCL, NODE, RAY, UNREAD
from shoal.spec.registry import RESERVED, builtin
from shoal.spec.variable import Reader, Variable
from shoal.state import status
from shoal.state.status import ClusterState, ClusterStatus, EngineState, NodeState
from shoal.ui.cli import VERBS
from shoal.ui.cli import main as cli

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("docs/reference")
MADE = "<!-- Made by tools/gen_docs.py. Change the source that it reads, then: make docs -->\n"
WIDTH = 78  # what click takes of a terminal of 80 columns
HEAD, WORKER = "127.0.0.1", "127.0.0.2"

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

NODE_STATES = {
    NodeState.STARTING: "The cluster was started less than 20 s ago, and this node's agent does not answer yet.",
    NodeState.WAITING: "The agent waits for the head, or waits a moment before it starts Ray again.",
    NodeState.JOINING: "Ray is starting, or the agent checks that the node is in Ray's table as it should be.",
    NodeState.UP: "The node is in the cluster, and was checked.",
    NodeState.DRAINING: "The agent was told to stop, and leaves the cluster.",
    NodeState.STOPPED: "The agent has left the cluster, and is about to end.",
    NodeState.FAILED: "The agent gave up: `detail` says why. It stays so until it is stopped.",
    NodeState.LOST: "The agent does not answer.",
}
ENGINE_STATES = {
    EngineState.WAITING: "The gate is shut: not every node is there. `detail` names who is missing or different.",
    EngineState.STARTING: "vLLM was started, and has not produced a token yet. `phase` says where it is.",
    EngineState.READY: "vLLM's token counter moved since the last look, or a token was asked for and came within 3 s.",
    EngineState.UNREADY: "It was ready. Now no token comes, a node is not up, or the supervisor does not answer.",
    EngineState.RESTARTING: "vLLM ended after it had been ready. It is started again in a moment.",
    EngineState.FAILED: "It stays down until somebody acts: the gate stayed shut, vLLM ended before its first token, "
    "or it ended too often.",
    EngineState.STOPPING: "The supervisor was told to stop, and ends vLLM.",
    EngineState.STOPPED: "vLLM has been ended.",
}
CLUSTER_STATES = {
    ClusterState.DOWN: "Nothing was brought up from this state folder.",
    ClusterState.STARTING: "Nodes or engine are still coming up.",
    ClusterState.READY: "A token can be produced, and every node is up.",
    ClusterState.DEGRADED: "A part that was up, or should be, is not. It may be on its way back.",
    ClusterState.FAILED: "The engine or a node has given up.",
    ClusterState.STOPPING: "It is being taken down.",
}


# ---------------------------------------------------------------- Markdown


def cell(text: str) -> str:
    """Text as one table cell."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def code(text: str) -> str:
    """Text as inline code; nothing for an empty one."""
    return f"`{text}`" if text else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines) + "\n"


def page(title: str, *parts: str) -> str:
    """A whole page out of its parts."""
    return "\n".join((MADE + f"\n# {title}\n", *parts))


# ---------------------------------------------------------------- JSON schema as words


def words(schema: Mapping[str, Any]) -> str:
    """The type that a piece of JSON schema describes."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(words(part) for part in schema["anyOf"])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(code(str(value)) for value in values)
    if schema.get("type") == "array":
        return f"list of {words(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return f"object of {words(schema['additionalProperties'])}" if "additionalProperties" in schema else "object"
    return str(schema.get("type", "any")) + bounds(schema)


def bounds(schema: Mapping[str, Any]) -> str:
    """The bounds of a number, in words."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    return f", more than {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else ""


# ---------------------------------------------------------------- the pages


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
        f"The ports {block.min_worker} to {block.max_worker} of each block are for Ray's worker processes.\n\n"
        "Ray and torch open further sockets whose address or port cannot be chosen: "
        "[SECURITY.md](../../SECURITY.md) names them.\n",
    )


def mover(what: str) -> str:
    """The option of ``shoal up`` that moves this port."""
    if what == "the API":
        return "--port"
    return "--port-base" if what.startswith("Ray") else "--agent-port"


def schema() -> str:
    """The status document as JSON schema."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    document |= ClusterStatus.model_json_schema(mode="serialization")
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def status_page() -> str:
    """The status document, field by field."""
    parts: tuple[type[BaseModel], ...] = (ClusterStatus, status.NodeStatus, status.EngineStatus, status.Versions)
    states = ((ClusterState, CLUSTER_STATES), (NodeState, NODE_STATES), (EngineState, ENGINE_STATES))
    return page(
        "Status document",
        "`shoal status --json` prints one document of this form. It says what is known at this moment; "
        "nothing is remembered.\n\n"
        f"This page describes `schema_version` {status.SCHEMA_VERSION}; "
        "[status.schema.json](status.schema.json) is the same as JSON schema.\n"
        "A new optional field keeps the version. A field that is removed, or that changes its meaning, raises it.\n\n"
        "The same parts come from the endpoints: an agent answers `/status` with a [NodeStatus](#nodestatus), "
        "the supervisor with an [EngineStatus](#enginestatus).\n\n"
        "Exit code of `shoal status`, with `--json` or without: 0 while the state is `ready`, 4 where it is `down`, "
        "1 for all others.\n",
        *(f"## {part.__name__}\n\n{field_table(part)}" for part in parts),
        *(f"## {kind.__name__}\n\n{state_table(kind, meanings)}" for kind, meanings in states),
    )


def field_table(part: type[BaseModel]) -> str:
    """The fields of one part."""
    properties = part.model_json_schema(mode="serialization")["properties"]
    return table(
        ("field", "type", "meaning"),
        (
            (code(name), words(value), value.get("description", "").replace("None", "`null`"))
            for name, value in properties.items()
        ),
    )


def state_table(kind: type[StrEnum], meanings: Mapping[Any, str]) -> str:
    """States with their meaning; a state without one fails here."""
    return table(("state", "meaning"), ((code(state.value), meanings[state]) for state in kind))


@contextmanager
def called_as(*argv: str) -> Iterator[None]:
    """The program's arguments, which the command line looks at to tell its help page from others."""
    before, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = before


def help_of(*argv: str) -> str:
    """What ``shoal ARGV --help`` prints in 80 columns."""
    with called_as("shoal", *argv, "--help"):
        done = CliRunner().invoke(cli, [*argv, "--help"], prog_name="shoal", terminal_width=WIDTH)
    if done.exit_code:
        raise RuntimeError(f"shoal {' '.join(argv)} --help: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.splitlines())


def cli_page() -> str:
    """The help of every verb."""
    verbs = (f"## shoal {' '.join(words)}\n\n```text\n{help_of(*words)}\n```\n" for words in all_verbs())
    about = "What `shoal --help` and `shoal VERB --help` print. Exit codes: [exit-codes.md](exit-codes.md).\n"
    return page("Command line", about, f"```text\n{help_of()}\n```\n", *verbs)


def all_verbs() -> Iterator[tuple[str, ...]]:
    """Every verb, and after it those below it."""
    for verb in VERBS:
        yield (verb,)
        command = import_module(f"shoal.ui.verbs.{verb}").verb
        if isinstance(command, Group):
            yield from ((verb, name) for name in command.commands)


def family() -> list[type[ShoalError]]:
    """The error family, by exit code, parents before children."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ShoalError)]
    return sorted(kinds, key=lambda kind: (kind.exit_code, len(kind.__mro__)))


def exit_codes() -> str:
    """Exit codes, from the error family."""
    return page(
        "Exit codes",
        "Every error says what happened, why, and the command that mends it, on standard error. "
        "With `shoal up --json` the same\ncomes as one line on standard output too: "
        '`{"event": "error", "what": ..., "why": ..., "fix": ..., "exit_code": ...}`.\n',
        table(
            ("code", "error", "meaning"),
            (
                (str(kind.exit_code), code(kind.__name__), (kind.__doc__ or "").strip().splitlines()[0])
                for kind in family()
            ),
        ),
        "## Codes that are no errors of this family\n",
        table(
            ("code", "of", "meaning"),
            (
                ("0", "every verb", "Done. `shoal down` gives 0 where nothing was up, too."),
                ("0", code("shoal up"), "The attached cluster was ended by Ctrl-C after it had been ready."),
                ("1", code("shoal env check"), "Something in the file is wrong."),
                ("1", code("shoal status"), "Something is up, and it is not ready."),
                ("1", code("shoal render"), "Files would be overwritten, and nobody agreed: nothing was written."),
                ("1", code("shoal health"), "The program does not answer, or says no."),
                ("2", "every verb", "An unknown verb, option or value."),
                ("4", code("shoal status"), "Nothing is up."),
                ("78", "`shoal agent`, `shoal serve`", "A setting is wrong. Do not restart it: nothing would change."),
                ("130", code("shoal up"), "Interrupted before it was ready. All that was started was taken down."),
            ),
        ),
    )


REGISTRY = """\
A model registry is a YAML file. Each key names one model. Give the file to `shoal up --local` with `--models FILE`,
and choose a key with `--model KEY`. The keys of the file come on top of the built-in ones; an equal key replaces one.

```yaml
my-model:
  model: /data/models/my-model
  description: what people read
  max-model-len: 4096
  dtype: bfloat16
```
"""

FORMS = {
    "/a/folder": "A folder with `config.json`, a tokenizer and `*.safetensors`. It is looked at before the start. "
    "Write its whole path.",
    "~/a/folder": "The same, below your home folder.",
    "package:MODULE/FILE.gguf": "Weights that an installed Python package carries. They are converted on first use, "
    "and kept in the cache folder.",
}

RULES = """\
- An option is written as vLLM's own, in kebab-case and without the dashes in front.
- `true` becomes the bare option, `false` its `--no-` form. All else is handed on as it was written.
- A value is one word, number or text. Structured options are JSON in quotes.
- `kv-cache-memory-bytes` is 512 MiB for each rank where the registry does not set it.
- Wrong entries are refused before anything starts, with file and line. vLLM itself refuses an option that it does not
  know; the start then ends with vLLM's words.
"""


def models() -> str:
    """The registry's form, and the built-in models."""
    return page(
        "Model registry",
        REGISTRY,
        "## Fields\n",
        table(
            ("field", "meaning"),
            (
                (code("model"), "required: where the model is, in one of the forms below"),
                (code("description"), "a sentence for people"),
                ("any other", "an option of vLLM's server"),
            ),
        ),
        "## Forms of `model`\n",
        table(("form", "meaning"), ((code(form), meaning) for form, meaning in FORMS.items())),
        "## Options\n",
        RULES,
        "These are decided by shoal and refused in a registry: " + ", ".join(map(code, sorted(RESERVED))) + ".\n",
        "## Built-in models\n",
        table(
            ("key", "model", "description", "options"),
            (
                (
                    code(entry.key),
                    code(entry.model),
                    entry.description,
                    ", ".join(code(f"{name}: {value}") for name, value in entry.options.items()),
                )
                for entry in builtin().values()
            ),
        ),
    )


def compose_page() -> str:
    """Every key of the compose files, with the deployments that have it."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for role in ROLES:
        for profile in PROFILES:
            for row in plan_container(role, profile).reasons():
                places = found.setdefault(row, [])
                places += [(role, profile)] if (role, profile) not in places else []
    rows = [(code(path), code(value), where(places), why) for (path, value, why), places in found.items()]
    heads = ("key", "value", "in", "why")
    environment = [row for row in rows if row[0].startswith("`environment")]
    return page(
        "Compose files",
        "What `shoal render worker` and `shoal render head` write, key by key. A reason holds for the keys below its "
        "own too.\nThe service `vllm` of the head has all keys of `ray-node`, but for those with a value of its own.\n",
        "## Keys\n",
        table(heads, (row for row in rows if row not in environment)),
        "## Environment\n",
        "A variable without a value is passed on only where `.env` or the shell sets it.\n",
        table(heads, ((name.replace("environment.", ""), *rest) for name, *rest in environment)),
    )


def where(places: Sequence[tuple[str, str]]) -> str:
    """The deployments of a row in words: roles and profiles, as far as they tell something."""
    roles = [role for role in ROLES if any(place[0] == role for place in places)]
    profiles = [profile for profile in PROFILES if any(place[1] == profile for place in places)]
    parts = ([] if len(roles) == len(ROLES) else roles) + ([] if len(profiles) == len(PROFILES) else profiles)
    return ", ".join(parts) or "all"


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "compose.md": compose_page,
    "environment.md": environment,
    "exit-codes.md": exit_codes,
    "models.md": models,
    "ports.md": ports,
    "status.md": status_page,
    "status.schema.json": schema,
}


def stale(root: Path = ROOT) -> dict[Path, str]:
    """By path below ``root``: pages that are missing or differ from what the sources say now, as they should be."""
    out = {}
    for name, make in PAGES.items():
        file, text = FOLDER / name, make()
        if not (root / file).is_file() or (root / file).read_text(encoding="utf-8") != text:
            out[file] = text
    return out


def main(argv: Sequence[str]) -> int:
    """Write what is stale, or name it; the exit code."""
    parser = argparse.ArgumentParser(prog="gen_docs.py", description="Write docs/reference from the sources.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is stale")
    check = parser.parse_args(argv).check
    pages = stale()
    for file, text in pages.items():
        print(f"{file} is stale: make docs" if check else f"wrote {file}")
        if not check:
            (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / file).write_text(text, encoding="utf-8")
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
