"""A container plan as files: ``compose.yaml``, ``.env.example`` and ``README.md``.

The YAML is written here and not by a library, because people read it: each key stands under its reason.
"""

import json
import re
from collections.abc import Iterator

import yaml

from shoal.plan.container import ContainerPlan, Key
from shoal.plan.variables import Variable
from shoal.render.readme import readme

WIDTH = 120
MADE = "Made by `shoal render {role} --profile {profile}`. Change .env; this file is written anew by the next render."
PLAIN = re.compile(r"[A-Za-z/.$*][^\s#'\"]*|\d+[sm]")
# What YAML 1.1 reads as something else than the text that it looks like.
WORDS = {"true", "false", "yes", "no", "on", "off", "null", "~"}

REGISTRY = "models.yaml"
EXAMPLE = """\
# What this head can serve: key -> model, and any option of `vllm serve` without its dashes.
# MODEL_NAME in .env names a key. Yours: a render does not touch this file again.
#
# my-model:
#   model: /models/my-model          # a folder below MODEL_CACHE, on every node; or ORGANISATION/MODEL of the hub
#   description: what it is for
#   max-model-len: 8192
#   gpu-memory-utilization: 0.9
"""


def compose_yaml(plan: ContainerPlan) -> str:
    """The compose file. Valid for Docker Compose v2 and docker-compose 1.29."""
    head = [f"# {line}" for line in _wrap(MADE.format(role=plan.role, profile=plan.profile), WIDTH - 2)]
    lines = [*head, "# Reasons, key by key: docs/reference/compose.md", "", "services:"]
    for service in plan.services:
        lines += [*_key(service, 2), ""]
    return "\n".join(lines[:-1]) + "\n"


def _key(key: Key, indent: int) -> Iterator[str]:
    """One key with all below it; its reason at the end of the line where there is room, else above."""
    pad = " " * indent
    start = f"{pad}{key.name}:" if key.name else f"{pad}-"
    start += f" &{key.anchor}" if key.anchor else ""
    if key.keys:
        if key.why:
            yield from (f"{pad}# {line}" for line in _wrap(key.why, WIDTH - indent - 2))
        yield from _below(key, start, indent)
        return
    if isinstance(key.value, str) and "\n" in key.value:
        yield from (f"{start} |", *(f"{pad}  {line}" for line in key.value.splitlines()))
        return
    line = f"{start} {_value(key)}".rstrip()
    if key.why and len(line) + len(key.why) + 4 <= WIDTH:
        yield f"{line}  # {key.why}"
        return
    if key.why:
        yield from (f"{pad}# {text}" for text in _wrap(key.why, WIDTH - indent - 2))
    yield line


def _below(key: Key, start: str, indent: int) -> Iterator[str]:
    lines = [line for item in key.keys for line in _key(item, indent + 2)]
    if key.name:
        yield start
    else:  # the first line of a list's item stands beside the dash
        lines[0] = start + lines[0][indent + 1 :]
    yield from lines


def _value(key: Key) -> str:
    if isinstance(key.value, tuple):
        return "[" + ", ".join(json.dumps(str(item)) for item in key.value) + "]"
    if isinstance(key.value, bool | int):
        return str(key.value).lower()
    return scalar(key.value) if key.value else ""


def scalar(text: str) -> str:
    """Text as YAML reads it back, without quotes where they are not needed."""
    if PLAIN.fullmatch(text) and text.lower() not in WORDS and not text.endswith(":") and ": " not in text:
        return text
    if text.startswith("${") and yaml.safe_load(f"- {text}") == [text]:
        return text
    return f"'{text}'" if '"' in text and "'" not in text else json.dumps(text, ensure_ascii=False)


def _wrap(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def env_example(plan: ContainerPlan) -> str:
    """The example of ``.env``: what must be edited first, everything else as comments with its default."""
    lines = ["# Copy this file to .env:  cp .env.example .env", "# An empty variable counts as one that is not set."]
    for section in plan.variables:
        lines += ["", f"# ---- {section.title}"]
        for variable in section.variables:
            lines += _example(variable)
    return "\n".join(lines) + "\n"


def _example(variable: Variable) -> list[str]:
    value = f"{variable.name}={variable.example}" if variable.example else f"#{variable.name}={variable.default}"
    return [f"# {variable.meaning}", value]


def files(plan: ContainerPlan) -> dict[str, str]:
    """The folder's files by name, but for ``shoal.pyz``."""
    made = {"compose.yaml": compose_yaml(plan), ".env.example": env_example(plan), "README.md": readme(plan)}
    return made | ({REGISTRY: EXAMPLE} if plan.role == "head" else {})
