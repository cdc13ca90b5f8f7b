"""Who gets files from whom, and whether a model is whole. Pure.

The nodes make a chain: each takes from the one before it and passes on what it has while it still takes. A link carries
every byte once in each direction, so that N nodes take hardly longer than one. Whoever has everything already stands
first; where somebody falls out, the one behind asks the one before.
"""

import json
from collections.abc import Container, Mapping, Sequence

from shoal.facts.model_folder import INDEX, TOKENIZERS, parse_object

PORT = 8710  # between the hosts, while a push runs
CHAIR = ""  # the machine where the command was typed, which is no host


def order(held: Mapping[str, int]) -> tuple[str, ...]:
    """The chain: who holds more stands before who holds less, else as in the cluster file."""
    places = list(held)
    return tuple(sorted(places, key=lambda name: (-held[name], places.index(name))))


def upstreams(chain: Sequence[str], whole: Container[str], *, chair: bool) -> dict[str, str | None]:
    """From whom each host that lacks something takes it; None where nobody can give it.

    Args:
        chain: hosts that are still there.
        whole: those that have everything.
        chair: whether this machine can give everything.
    """
    giver = next((name for name in chain if name in whole), CHAIR if chair else None)
    found: dict[str, str | None] = {}
    before = None
    for name in chain:
        if name not in whole:
            found[name] = giver if before is None or giver is None else before
        before = name
    return found


def missing(size: int, part: int, *, have: bool) -> int:
    """Bytes that a host still needs of one file."""
    return 0 if have else size - min(part, size)


def sending_order(path: str) -> tuple[int, str]:
    """Weights first. A folder without its config.json is no model to anybody, a snapshot without its ref neither."""
    name = path.rpartition("/")[2]
    return ("/refs/" in f"/{path}") * 2 + (name == "config.json"), path


def lacking(sizes: Mapping[str, int], index: bytes | None) -> tuple[str, ...]:
    """What keeps files from being a whole model: ``sizes`` by name, ``index`` as its file has it."""
    problems = [] if "config.json" in sizes else ["config.json is missing"]
    if not any(name in TOKENIZERS or name.endswith(".tiktoken") for name in sizes):
        problems.append("no tokenizer file such as tokenizer.json")
    weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    if index is not None:
        problems += _by_index(weights, index)
    elif not weights and not any(name.endswith(".bin") for name in sizes):
        problems.append("no weights: expected *.safetensors")
    return tuple(problems)


def _by_index(weights: Mapping[str, int], data: bytes) -> list[str]:
    index = parse_object(data)
    if isinstance(index, str):
        return [f"{INDEX} {index}"]
    named = index.get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        return [f"{INDEX} has no weight_map from tensors to files"]
    files = set(named.values())
    if absent := sorted(files - set(weights)):
        return [f"{INDEX} names files that are absent: {', '.join(absent[:3])}"]
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    held = sum(weights[name] for name in files)
    if type(total) is int and held < total:
        return [f"the weights are {held:,} bytes, {INDEX} says {total:,}"]
    return []


def same_image(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two answers of ``docker image inspect`` are of one image.

    The id is the config's digest, or with containerd's store the manifest's: two stores give one image two ids. Then
    its layers, its time and what is run in it decide.
    """
    return one.get("Id") == other.get("Id") or _content(one) == _content(other)


def _content(image: Mapping[str, object]) -> str:
    files, config = image.get("RootFS"), image.get("Config")
    layers = files.get("Layers") if isinstance(files, dict) else None
    ran = {key: config.get(key) or None for key in RUN} if isinstance(config, dict) else None
    return json.dumps([layers, ran, *(image.get(key) for key in ("Created", "Os", "Architecture"))], sort_keys=True)


RUN = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels")
