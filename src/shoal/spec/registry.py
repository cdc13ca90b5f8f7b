"""The model registry, ``models.yaml``: key -> model, description, and any vLLM option in kebab-case."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml

from shoal.errors import ConfigError
from shoal.spec.nearest import did_you_mean

Option = str | int | float | bool
# What shoal decides itself, from the plan; a second word on them would contradict it.
RESERVED = {
    "host", "port", "api-key", "middleware", "served-model-name", "distributed-executor-backend",
    "pipeline-parallel-size", "tensor-parallel-size", "data-parallel-size",
}  # fmt: skip
TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool")}


@dataclass(frozen=True)
class ModelEntry:
    """One model: where it comes from, and the vLLM options it is served with."""

    key: str
    model: str
    description: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    origin: str = "built-in"


def builtin() -> dict[str, ModelEntry]:
    """The models that shoal knows by itself."""
    source = files("shoal.spec").joinpath("models.yaml")
    return parse(source.read_text(encoding="utf-8"), "built-in")


def load(path: Path) -> dict[str, ModelEntry]:
    """The registry in ``path``; ConfigError names file and line of everything that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the model registry {path}", why=str(error)) from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> dict[str, ModelEntry]:
    """A registry out of YAML text; ``origin`` is the file's name in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not YAML", why=" ".join(str(error).split())) from error
    if root is None:
        return {}
    problems: list[str] = []
    entries = {entry.key: entry for entry in _entries(root, origin, problems)}
    if problems:
        raise ConfigError("\n".join(problems), fix=f"correct {origin}")
    return entries


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _entries(root: yaml.Node, origin: str, problems: list[str]) -> Iterator[ModelEntry]:
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{origin}:{_line(root)}: expected `KEY:` with the model's settings under it")
        return
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{origin}:{_line(key)}: expected a plain word as the model's key")
            continue
        if not isinstance(value, yaml.MappingNode):
            problems.append(f"{origin}:{_line(key)}: {key.value}: expected settings under it, such as `model: ...`")
            continue
        fields = _fields(key.value, value, origin, problems)
        if not fields.get("model"):
            problems.append(f"{origin}:{_line(key)}: {key.value} has no `model`")
            continue
        model, description = str(fields.pop("model")), str(fields.pop("description", ""))
        yield ModelEntry(str(key.value), model, description, fields, origin)


def _fields(key: str, node: yaml.MappingNode, origin: str, problems: list[str]) -> dict[str, Option]:
    fields: dict[str, Option] = {}
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            problems.append(f"{origin}:{_line(name)}: {key}: expected a plain word as the option's name")
            continue
        where = f"{origin}:{_line(name)}: {key}.{name.value}"
        if not isinstance(value, yaml.ScalarNode):
            problems.append(f"{where}: expected one value; write JSON in quotes for structured options")
        elif name.value in RESERVED:
            problems.append(f"{where} is decided by shoal's plan and cannot be set here")
        elif "_" in name.value:
            problems.append(f'{where}: did you mean "{name.value.replace("_", "-")}"?')
        else:
            fields[str(name.value)] = _scalar(value)
    return fields


def _scalar(node: yaml.ScalarNode) -> Option:
    """A number or a truth value where YAML reads one without quotes, else the text as it was written."""
    if node.style is not None or node.tag not in TYPED:
        return str(node.value)
    try:
        value: Option = yaml.SafeLoader("").construct_object(node)
    except (ValueError, LookupError):  # `!!int x`, `0x_`
        return str(node.value)
    return value


def check_options(entry: ModelEntry, known: frozenset[str]) -> None:
    """Raise ConfigError where the entry has an option that the installed vLLM's parser does not know."""
    wrong = sorted(set(entry.options) - known)
    if wrong:
        lines = [f'unknown option "{name}" of model {entry.key}; {did_you_mean(name, known)}' for name in wrong]
        raise ConfigError("\n".join(lines), why="the installed vLLM has no such option", fix=f"correct {entry.origin}")
