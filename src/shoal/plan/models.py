"""Which model is meant."""

from collections.abc import Mapping
from pathlib import Path

from shoal.errors import UsageError
from shoal.spec.nearest import did_you_mean
from shoal.spec.registry import ModelEntry

DEFAULT = "smollm2"


def choose(word: str, registry: Mapping[str, ModelEntry], origin: str = "--model") -> ModelEntry:
    """The registry's entry of that key, or an entry for a model folder's path or a name on the hub.

    A folder is served under its own name, a model of the hub under its whole one. ``origin`` is where the word stands.

    Raises:
        UsageError: neither; the nearest keys are named.
    """
    if word in registry:
        return registry[word]
    if "/" in word:
        key = (Path(word).name or "model") if word.startswith(("/", ".", "~")) else word
        return ModelEntry(key=key, model=word, description="a model folder, or a name on the hub", origin=origin)
    fix = "give a key of the registry or the path of a folder"
    raise UsageError(f'unknown model "{word}"', why=did_you_mean(word, registry), fix=fix)


def option_arguments(options: Mapping[str, object]) -> tuple[str, ...]:
    """Registry options as vLLM arguments: true is a bare flag, false its ``--no-`` form."""
    out: list[str] = []
    for name, value in options.items():
        if value is True:
            out.append(f"--{name}")
        elif value is False:
            out.append(f"--no-{name}")
        else:
            out += [f"--{name}", str(value)]
    return tuple(out)
