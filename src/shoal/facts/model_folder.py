"""What a model folder holds, and what is wrong with it, before anything heavy is started.

Only names, sizes and headers are read, never weights. Whatever the bytes are, the answer is a :class:`ModelFolder`
with ``problems``, not an exception.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER = 100_000_000  # bytes; the safetensors format's own bound
MAX_JSON = 100_000_000  # bytes; the largest indices are a few MB
LFS_POINTER = b"version "  # what `git clone` without LFS leaves in place of each large file
INDEX = "model.safetensors.index.json"

TOKENIZERS = {
    "tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tiktoken.model", "tokenizer.model.v3",
}  # fmt: skip
# Left by training, and never weights to serve; the names that vLLM leaves out too.
NOT_WEIGHTS = {"training_args.bin", "optimizer.bin"}

# The same number under the names that model families gave it.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
HIDDEN = ("hidden_size", "n_embd", "d_model")
CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model. What config.json does not tell is None; ``weight_bytes`` counts tensors only."""

    path: Path
    files: tuple[str, ...] = ()
    architecture: str | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    hidden_size: int | None = None
    context_length: int | None = None
    dtype: str | None = None
    weight_bytes: int = 0
    problems: tuple[str, ...] = ()


def inspect(path: Path) -> ModelFolder:
    """Look at a folder."""
    try:
        files = tuple(sorted(entry.name for entry in path.iterdir()))
    except (OSError, ValueError) as error:
        return ModelFolder(path, problems=(f"{path}: {_reason(error)}",))
    problems: list[str] = []
    config = _config(path, problems)
    if not any(name in TOKENIZERS or name.endswith(".tiktoken") for name in files):
        problems.append("no tokenizer file such as tokenizer.json")
    weights = sum(_tensor_bytes(path / name, problems) for name in _weight_files(path, files, problems))
    # Models that also see or hear keep the language model's numbers one level down.
    inner = config.get("text_config")
    layers = (config, inner) if isinstance(inner, dict) else (config,)
    return ModelFolder(
        path=path,
        files=files,
        architecture=_architecture(config),
        num_hidden_layers=_number(layers, LAYERS),
        num_attention_heads=_number(layers, HEADS),
        num_key_value_heads=_number(layers, ("num_key_value_heads",)),
        hidden_size=_number(layers, HIDDEN),
        context_length=_number(layers, CONTEXT),
        dtype=_text(layers, ("dtype", "torch_dtype")),
        weight_bytes=weights,
        problems=tuple(problems),
    )


def parse_object(data: bytes) -> dict[str, Any] | str:
    """The JSON object in ``data``, or what is wrong with it."""
    if not data.strip():
        return "is empty"
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else f"holds a {type(value).__name__}, expected an object"


def parse_header(header: bytes) -> int | None:
    """Bytes of tensors that a safetensors header lays out; None where it is no such header."""
    entries = parse_object(header)
    if isinstance(entries, str):
        return None
    end = 0
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)):
            return None
        if not 0 <= offsets[0] <= offsets[1] < 1 << 63:
            return None
        end = max(end, offsets[1])
    return end


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read(path: Path, problems: list[str]) -> bytes | None:
    """A file's first ``MAX_JSON`` bytes; None, with a problem told, where it may not be read."""
    try:
        # Opening a pipe would wait for its writer.
        if path.exists() and not path.is_file():
            problems.append(f"{path.name} is not a file")
            return None
        with path.open("rb") as file:
            return file.read(MAX_JSON)
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {_reason(error)}")
        return None


def _config(folder: Path, problems: list[str]) -> dict[str, Any]:
    if not os.path.lexists(folder / "config.json"):
        problems.append("config.json is missing")
        return {}
    data = _read(folder / "config.json", problems)
    if data is None:
        return {}
    config = parse_object(data)
    if isinstance(config, str):
        problems.append(f"config.json {config}")
        return {}
    if _architecture(config) is None:
        problems.append("config.json names no architectures")
    return config


def _architecture(config: dict[str, Any]) -> str | None:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) and named[0] else None


def _number(levels: Iterable[dict[str, Any]], names: Iterable[str]) -> int | None:
    found = (level.get(name) for level in levels for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)


def _text(levels: Iterable[dict[str, Any]], names: Iterable[str]) -> str | None:
    found = (level.get(name) for level in levels for name in names)
    return next((value for value in found if isinstance(value, str) and value), None)


def _weight_files(folder: Path, files: tuple[str, ...], problems: list[str]) -> tuple[str, ...]:
    """The files that vLLM would load: an index decides, else all safetensors, else all .bin."""
    tensors = tuple(name for name in files if name.endswith(".safetensors"))
    named = _indexed(folder, problems) if INDEX in files else None
    if named is not None:
        absent = sorted(named - set(files))
        if absent:
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            problems.append(f"{INDEX} names files that are absent: {', '.join(absent[:3])}{more}")
        return tuple(name for name in tensors if name in named)
    pickled = tuple(name for name in files if name.endswith(".bin") and name not in NOT_WEIGHTS)
    if not tensors and not pickled:
        gguf = next((name for name in files if name.lower().endswith(".gguf")), None)
        only = f"only GGUF weights ({gguf}), which are not the Hugging Face layout" if gguf else "no weights"
        problems.append(f"{only}: expected *.safetensors")
    return tensors or pickled


def _indexed(folder: Path, problems: list[str]) -> set[str] | None:
    """The files that the index names; None, with a problem told, where it cannot be used."""
    data = _read(folder / INDEX, problems)
    if data is None:
        return None
    index = parse_object(data)
    if isinstance(index, str):
        problems.append(f"{INDEX} {index}")
        return None
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        problems.append(f"{INDEX} has no weight_map from tensors to files")
        return None
    return set(names.values())


def _tensor_bytes(path: Path, problems: list[str]) -> int:
    """Bytes of tensors in one file of weights; 0, with a problem told, where it may not be read."""
    try:
        if path.exists() and not path.is_file():
            problems.append(f"{path.name} is not a file")
            return 0
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(length) if length <= min(MAX_HEADER, size - 8) else b""
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {_reason(error)}")
        return 0
    if start == LFS_POINTER:
        problems.append(f"{path.name} is a Git LFS pointer, not the weights: run `git lfs pull` in {path.parent}")
    elif path.suffix == ".safetensors":
        return _judge(path.name, size, length, header, problems)
    return size


def _judge(name: str, size: int, length: int, header: bytes, problems: list[str]) -> int:
    """Bytes of tensors by the header, compared with the file's ``size``; a download that broke off is told."""
    if size < 8:
        problems.append(f"{name} is {size} bytes, too short to have a header")
    elif length > MAX_HEADER:
        problems.append(f"{name} is no safetensors file: its header would be {length:,} bytes long")
    elif length > size - 8:
        problems.append(f"{name} is {size:,} bytes, its header alone takes {8 + length:,}")
    else:
        tensors = parse_header(header)
        if tensors is None:
            problems.append(f"{name} has a damaged header")
        elif 8 + length + tensors != size:
            problems.append(f"{name} is {size:,} bytes, its header says {8 + length + tensors:,}")
        return tensors or 0
    return 0
