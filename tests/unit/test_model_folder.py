"""What a model folder tells, and that no bytes in it are too odd to be told about."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.facts.model_folder import INDEX, MAX_HEADER, ModelFolder, inspect, parse_header, parse_object

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


def safetensors(tensor_bytes: int) -> bytes:
    """A whole file with one tensor."""
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": {"dtype": "U8", "data_offsets": [0, tensor_bytes]}})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(tensor_bytes)


def folder(path: Path, **changes: bytes | None) -> Path:
    """A good folder in ``path``; ``config``, ``tokenizer``, ``model`` replace a file, None leaves it out."""
    parts = {"config": json.dumps(CONFIG).encode(), "tokenizer": b"{}", "model": safetensors(100)} | changes
    names = {"config": "config.json", "tokenizer": "tokenizer.json", "model": "model.safetensors"}
    for part, data in parts.items():
        if data is not None:
            (path / names[part]).write_bytes(data)
    return path


def test_a_good_folder_is_told_whole(tmp_path: Path) -> None:
    """Numbers come from config.json, bytes from the headers."""
    assert inspect(folder(tmp_path)) == ModelFolder(
        path=tmp_path,
        files=("config.json", "model.safetensors", "tokenizer.json"),
        architecture="LlamaForCausalLM",
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        hidden_size=576,
        context_length=8192,
        dtype="bfloat16",
        weight_bytes=100,
        problems=(),
    )


def test_older_names_of_the_numbers_are_known(tmp_path: Path) -> None:
    """GPT-2's config.json."""
    config = {
        "architectures": ["G"],
        "n_layer": 12,
        "n_head": 6,
        "n_embd": 768,
        "n_positions": 1024,
        "torch_dtype": "x",
    }
    found = inspect(folder(tmp_path, config=json.dumps(config).encode()))
    assert (found.num_hidden_layers, found.num_attention_heads, found.hidden_size) == (12, 6, 768)
    assert (found.context_length, found.dtype) == (1024, "x")


def test_numbers_one_level_down_are_found(tmp_path: Path) -> None:
    """Models with vision keep them under text_config."""
    found = inspect(folder(tmp_path, config=json.dumps({"architectures": ["V"], "text_config": CONFIG}).encode()))
    assert (found.num_hidden_layers, found.dtype) == (30, "bfloat16")


@pytest.mark.parametrize("value", [None, "30", 0, -1, True, 1.5, [30], {}])
def test_a_number_that_is_none_is_none(tmp_path: Path, value: Any) -> None:
    """Nobody downstream divides by it."""
    config = json.dumps(CONFIG | {"num_hidden_layers": value}).encode()
    assert inspect(folder(tmp_path, config=config)).num_hidden_layers is None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (None, "config.json is missing"),
        (b"", "config.json is empty"),
        (b" \n", "config.json is empty"),
        (b'{"architectures": ["Lla', "config.json is not JSON: "),
        (b"\xff\xfe", "config.json is not JSON: "),
        (b"[" * 100_000, "config.json is not JSON: "),
        (b"9" * 5000, "config.json is not JSON: "),
        (b"[]", "config.json holds a list, expected an object"),
        (b"{}", "config.json names no architectures"),
        (b'{"architectures": []}', "config.json names no architectures"),
        (b'{"architectures": [1]}', "config.json names no architectures"),
        (b'{"architectures": "Llama"}', "config.json names no architectures"),
    ],
)
def test_a_bad_config_is_one_problem(tmp_path: Path, config: bytes | None, problem: str) -> None:
    """The rest of the folder is judged all the same."""
    found = inspect(folder(tmp_path, config=config))
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    assert found.weight_bytes == 100


def test_a_folder_without_tokenizer_is_told(tmp_path: Path) -> None:
    """vLLM would fail minutes later."""
    assert inspect(folder(tmp_path, tokenizer=None)).problems == ("no tokenizer file such as tokenizer.json",)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    """A training leftover is none."""
    (tmp_path / "training_args.bin").write_bytes(b"x")
    assert inspect(folder(tmp_path, model=None)).problems == ("no weights: expected *.safetensors",)


def test_a_folder_with_gguf_only_is_told(tmp_path: Path) -> None:
    """It is a model, but not in the layout that is served."""
    (tmp_path / "m.Q4_1.gguf").write_bytes(b"GGUF")
    (problem,) = inspect(folder(tmp_path, model=None)).problems
    assert problem == "only GGUF weights (m.Q4_1.gguf), which are not the Hugging Face layout: expected *.safetensors"


def test_pickled_weights_count_by_size_and_only_without_safetensors(tmp_path: Path) -> None:
    """As vLLM chooses."""
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(70))
    assert inspect(folder(tmp_path, model=None)).weight_bytes == 70
    assert inspect(folder(tmp_path)).weight_bytes == 100


def test_a_torn_download_is_told_with_both_sizes(tmp_path: Path) -> None:
    """The header knows how long the file should be."""
    whole = safetensors(2_000_000)
    found = inspect(folder(tmp_path, model=whole[:1234]))
    assert found.problems == (f"model.safetensors is 1,234 bytes, its header says {len(whole):,}",)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (b"", "is 0 bytes, too short to have a header"),
        (b"1234567", "is 7 bytes, too short to have a header"),
        (safetensors(5)[:30], "is 30 bytes, its header alone takes "),
        (safetensors(5) + b"x", "bytes, its header says "),
        ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "is no safetensors file: its header would be 100,000,001"),
        (b"<!DOCTYPE html><html>", "is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer, not the weights"),
        ((2).to_bytes(8, "little") + b"[]", "has a damaged header"),
        ((9).to_bytes(8, "little") + b'{"w": {}}', "has a damaged header"),
        ((4).to_bytes(8, "little") + b"\xff\xfe{}", "has a damaged header"),
    ],
)
def test_a_bad_file_of_weights_is_one_problem(tmp_path: Path, model: bytes, problem: str) -> None:
    """Each damage has its own words."""
    (told,) = inspect(folder(tmp_path, model=model)).problems
    assert told.startswith("model.safetensors ")
    assert problem in told


def test_weights_are_never_read_whole(tmp_path: Path) -> None:
    """A sparse file of 40 GB is judged at once."""
    head = json.dumps({"w": {"data_offsets": [0, 40_000_000_000]}}).encode()
    path = folder(tmp_path, model=len(head).to_bytes(8, "little") + head) / "model.safetensors"
    os.truncate(path, 8 + len(head) + 40_000_000_000)
    assert inspect(tmp_path).weight_bytes == 40_000_000_000


def test_absent_shards_are_named_and_the_present_ones_counted(tmp_path: Path) -> None:
    """A file beside the index that the index does not name is not loaded, so it does not count."""
    names = [f"model-{number}-of-6.safetensors" for number in range(1, 7)]
    (tmp_path / names[0]).write_bytes(safetensors(40))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {f"t{name}": name for name in names}}))
    found = inspect(folder(tmp_path))
    assert found.weight_bytes == 40
    assert found.problems == (f"{INDEX} names files that are absent: {', '.join(names[1:4])} and 2 more",)


@pytest.mark.parametrize("index", ["", "[]", "{", "{}", '{"weight_map": {}}', '{"weight_map": {"t": 1}}'])
def test_an_index_that_cannot_be_used_is_told_and_ignored(tmp_path: Path, index: str) -> None:
    """The files themselves are judged then."""
    (tmp_path / INDEX).write_text(index)
    found = inspect(folder(tmp_path))
    assert found.problems[0].startswith(INDEX)
    assert found.weight_bytes == 100


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", INDEX])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    """A dangling link, a folder and a pipe are told by name; the pipe does not block."""
    for make in (lambda path: path.symlink_to("gone"), Path.mkdir, os.mkfifo):
        where = Path(tempfile.mkdtemp(dir=tmp_path))
        folder(where)
        (where / name).unlink(missing_ok=True)
        make(where / name)
        (problem,) = inspect(where).problems
        assert problem.startswith(
            f"{name} cannot be read: No such file" if make not in (Path.mkdir, os.mkfifo) else name
        )


@pytest.mark.parametrize("path", ["gone", "a\0b", "file"])
def test_a_path_that_is_no_folder_is_told(tmp_path: Path, path: str) -> None:
    """Not there, impossible, or a file."""
    (tmp_path / "file").touch()
    found = inspect(tmp_path / path)
    assert len(found.problems) == 1
    assert found.files == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["architectures", "text_config", "num_hidden_layers", "dtype", "data_offsets", "weight_map", "w"]
)
DOCUMENT = st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3)).map(
    lambda value: json.dumps(value).encode()
)


@given(st.binary() | DOCUMENT)
def test_the_parsers_take_any_bytes(data: bytes) -> None:
    """An answer, never an exception."""
    assert isinstance(parse_object(data), dict | str)
    assert parse_header(data) is None or parse_header(data) >= 0  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(
    config=st.binary() | DOCUMENT,
    index=st.none() | st.binary() | DOCUMENT,
    model=st.binary() | DOCUMENT,
    framed=st.booleans(),
)
def test_a_folder_of_any_bytes_is_told_about(config: bytes, index: bytes | None, model: bytes, framed: bool) -> None:
    """An answer, never an exception, whatever the files hold."""
    with tempfile.TemporaryDirectory() as name:
        path = folder(Path(name), config=config, model=len(model).to_bytes(8, "little") + model if framed else model)
        if index is not None:
            (path / INDEX).write_bytes(index)
        found = inspect(path)
    assert found.weight_bytes >= 0
    assert all(isinstance(problem, str) for problem in found.problems)
