"""A model's ``config.json`` and the size of its weights, from a folder, the hub's cache, or the hub itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from shoal.errors import ConfigError, PreconditionFailed
from shoal.facts.model_folder import INDEX, MAX_JSON, inspect, parse_object

HUB = "https://huggingface.co"
DEADLINE = 20.0
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Source:
    """What is known of a model. ``file_bytes`` is 0 where no file and no index tells; ``origin`` says what was read."""

    config: Mapping[str, Any]
    file_bytes: int
    origin: str


def read(model: Path | str, env: Mapping[str, str]) -> Source:
    """The model in a folder, or of that name on the hub.

    Raises:
        ConfigError: its files are damaged.
        PreconditionFailed: it is not there, or the hub does not give it.
    """
    if isinstance(model, Path):
        return _folder(model)
    found = cached(model, env)
    return _folder(found) if found else _hub(model, env)


def _folder(path: Path) -> Source:
    config = _parsed((path / "config.json").read_bytes, f"{path}/config.json")
    looked = inspect(path)
    whole = looked.weight_bytes and not any("absent" in problem for problem in looked.problems)
    if whole:
        return Source(config, looked.weight_bytes, f"{path}, weights by their files")
    if (path / INDEX).is_file():
        return _by_index(config, _parsed((path / INDEX).read_bytes, f"{path}/{INDEX}"), str(path))
    return Source(config, 0, f"{path}, weights by config.json")


def _by_index(config: Mapping[str, Any], index: Mapping[str, Any], origin: str) -> Source:
    metadata = index.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if type(size) is int and size > 0:
        return Source(config, size, f"{origin}, weights by the index")
    return Source(config, 0, f"{origin}, weights by config.json")


def _parsed(get: Callable[[], bytes], name: str) -> dict[str, Any]:
    try:
        found = parse_object(get()[:MAX_JSON])
    except OSError as error:
        why = error.strerror or str(error)
        raise PreconditionFailed(
            f"cannot read {name}", why=why, fix="name a model folder in Hugging Face's layout"
        ) from error
    if isinstance(found, str):
        raise ConfigError(f"{name} {found}", fix="get the file anew")
    return found


def cached(model: str, env: Mapping[str, str]) -> Path | None:
    """The newest snapshot in the hub's cache that has a config.json."""
    home = Path(env.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    snapshots = home.glob(f"hub/models--{model.replace('/', '--')}/snapshots/*/config.json")
    newest = max(snapshots, key=lambda file: file.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _hub(model: str, env: Mapping[str, str]) -> Source:
    if env.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise PreconditionFailed(
            f"{model} is not in the hub's cache, and HF_HUB_OFFLINE forbids to ask the hub",
            fix="name its folder, or unset HF_HUB_OFFLINE",
        )
    config = _parsed(lambda: _fetch(model, "config.json", env) or b"", f"config.json of {model}")
    index = _fetch(model, INDEX, env)
    if index is None:
        return Source(config, 0, f"{model} on the hub, weights by config.json")
    return _by_index(config, _parsed(lambda: index, f"{INDEX} of {model}"), f"{model} on the hub")


def _fetch(model: str, name: str, env: Mapping[str, str]) -> bytes | None:
    """A small file of the hub; None for an index that is not there, as with models of one file."""
    base = (env.get("HF_ENDPOINT") or HUB).rstrip("/")
    url = f"{base}/{quote(model)}/resolve/main/{name}"
    token = next((env[key] for key in TOKENS if env.get(key)), "")
    asked = Request(url)  # noqa: S310  checked below
    if token:  # not for the place that the hub sends one on to
        asked.add_unredirected_header("Authorization", f"Bearer {token}")
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"HF_ENDPOINT={base}: expected a web address", fix="unset HF_ENDPOINT")
    try:
        with urlopen(asked, timeout=DEADLINE) as answer:  # noqa: S310  http or https
            return bytes(answer.read(MAX_JSON))
    except HTTPError as error:
        if error.code == 404 and name == INDEX:
            return None
        raise _refused(model, error.code) from error
    except (URLError, HTTPException, OSError) as error:
        why = str(getattr(error, "reason", error))
        raise PreconditionFailed(
            f"cannot ask {base} for {model}", why=why, fix="name the model's folder instead"
        ) from error


def _refused(model: str, code: int) -> PreconditionFailed:
    if code in {401, 403}:
        fix = f"accept its licence at {HUB}/{model}, and set HUGGING_FACE_HUB_TOKEN"
        return PreconditionFailed(
            f"the hub does not give {model} to you", why="it is private, gated, or not there", fix=fix
        )
    fix = f"look at {HUB}/{model}, or name the model's folder"
    return PreconditionFailed(f"the hub has no config.json of {model}", why=f"it answers {code}", fix=fix)
