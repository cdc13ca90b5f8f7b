"""The meaning of ``VLLM_RAY_WORKER_ENV_VARS``, a name that no vLLM reads. Pure.

(1) The agent starts Ray with these variables, so that every worker inherits its node's own values. (2) The supervisor
lists them under the name that the installed vLLM honours. (3) What differs between nodes, and every secret, is kept out
of what vLLM copies from the head.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.log import is_secret
from shoal.spec.env_table import FOLLOW, PER_NODE, VARIABLES, WORKER_DEFAULT

LIST = "VLLM_RAY_WORKER_ENV_VARS"
COPY = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
V2 = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"
_AUTO = {row.name for row in VARIABLES if row.auto}
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Carrier:
    """How one generation of vLLM carries the driver's variables to Ray's workers."""

    reads_list: bool  # it honours VLLM_RAY_EXTRA_ENV_VARS_TO_COPY
    all_variables: bool = False  # it copies every variable
    overwrites: bool = False  # the head's value replaces the node's own


def carrier(vllm: str | None, env: Mapping[str, str]) -> Carrier:
    """What the installed vLLM does; an unknown version is taken for one that wants to be told.

    Up to 0.16 only names that vLLM knows itself are copied: no NCCL_*, no list. 0.17 to 0.20 copy NCCL_* and the list,
    over the node's own values. From 0.21 on the executor is a new one, which copies everything that the node does not
    have; 0.20 has it on demand, and until 0.32 it can be turned off.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})", vllm or "")
    if found is None:
        return Carrier(reads_list=True, overwrites=True)
    version = int(found[1]), int(found[2])
    if version < (0, 17):
        return Carrier(reads_list=False, overwrites=True)
    asked = env.get(V2, "1" if version >= (0, 21) else "0").lower() in {"1", "true"}
    if version >= (0, 33) or (asked and version >= (0, 20)):
        return Carrier(reads_list=False, all_variables=True)
    return Carrier(reads_list=True, overwrites=True)


def listed(env: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that workers must have: those of the list, or every NCCL_* of the table."""
    named = tuple(name for item in env.get(LIST, "").split(",") if (name := item.strip()))
    return named or WORKER_DEFAULT


def passed_on(env: Mapping[str, str]) -> dict[str, str]:
    """What a child inherits: nothing empty, no secret, and no `auto`, which only shoal understands.

    An empty variable is removed because some mean something when empty: ``CUDA_VISIBLE_DEVICES=`` hides every GPU.
    """
    return {
        name: value
        for name, value in env.items()
        if value and not is_secret(name) and not (name in _AUTO and value.strip().lower() == "auto")
    }


def for_raylet(env: Mapping[str, str]) -> dict[str, str]:
    """Part 1: what Ray's workers on this node inherit. A secret is among it only where the list names it."""
    named = {name for name in listed(env) if env.get(name) and name != "RAY_AUTH_TOKEN"}
    own = passed_on(env) | {name: env[name] for name in sorted(named) if is_secret(name)}
    return {name: interface(own) for name in FOLLOW if interface(own)} | own


def interface(env: Mapping[str, str]) -> str:
    """The one interface that NCCL_SOCKET_IFNAME names, without its sign; nothing where it names none, or several."""
    value = env.get("NCCL_SOCKET_IFNAME", "").strip().removeprefix("=")
    return value if _NAME.fullmatch(value) else ""


def copied(env: Mapping[str, str], vllm: str | None) -> dict[str, str]:
    """Part 2: the variable that tells the installed vLLM what to copy; nothing where it reads none.

    Only what the driver has, and what is the same on all nodes.
    """
    asked = {name for item in env.get(COPY, "").split(",") if (name := item.strip())}
    ours = {name for name in listed(env) if env.get(name)}
    names = {name for name in asked | ours if name not in PER_NODE and not is_secret(name)}
    return {COPY: ",".join(sorted(names))} if names and carrier(vllm, env).reads_list else {}


def not_carried(env: Mapping[str, str]) -> list[str]:
    """Part 3: the names that vLLM must not copy. Every generation reads them from its file."""
    secrets = {name for name in (*env, *listed(env)) if is_secret(name)}
    return sorted({*PER_NODE, *secrets, *(row.name for row in VARIABLES if row.secret)})
