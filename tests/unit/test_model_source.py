"""Where a model's numbers come from: a folder, the hub's cache, the hub; and how each refusal is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shoal.errors import ConfigError, PreconditionFailed
from shoal.ops.model_source import Source, read

CONFIG = {"architectures": ["X"]}
INDEX = "model.safetensors.index.json"


def safetensors(size: int) -> bytes:
    """A file of weights with one tensor of so many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * size


def test_a_folder_with_its_weights(tmp_path: Path) -> None:
    """The files themselves say how large the weights are."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(safetensors(1000))
    assert read(tmp_path, {}) == Source(CONFIG, 1000, f"{tmp_path}, weights by their files")


def test_a_folder_with_an_index_alone(tmp_path: Path) -> None:
    """The index's total is taken where the files are not there; where it has none, nothing is known."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {"total_size": 5}, "weight_map": {"w": "a.safetensors"}}))
    assert read(tmp_path, {}) == Source(CONFIG, 5, f"{tmp_path}, weights by the index")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert read(tmp_path, {}) == Source(CONFIG, 0, f"{tmp_path}, weights by config.json")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A missing config.json and a damaged one are told with their path."""
    with pytest.raises(PreconditionFailed, match=f"cannot read {tmp_path}/config.json"):
        read(tmp_path, {})
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="holds a list, expected an object"):
        read(tmp_path, {})


def test_the_hubs_cache_needs_no_network(tmp_path: Path) -> None:
    """A model that was downloaded before is read from there."""
    snapshot = tmp_path / "hub/models--org--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    assert read("org/name", {"HF_HOME": str(tmp_path)}).origin == f"{snapshot}, weights by config.json"


def test_offline_is_offline(tmp_path: Path) -> None:
    """Where the hub may not be asked, that is said."""
    with pytest.raises(PreconditionFailed, match="HF_HUB_OFFLINE forbids"):
        read("org/name", {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})


class Hub(BaseHTTPRequestHandler):
    """A hub with a model, one of a single file, and one behind a licence."""

    def do_GET(self) -> None:
        model, _, name = self.path.partition("/resolve/main/")
        secret = model == "/org/gated" and self.headers["Authorization"] != "Bearer hf_x"
        known = {"config.json": CONFIG, INDEX: {"metadata": {"total_size": 7}}}
        if model == "/org/single":
            del known[INDEX]
        found = known.get(name) if model in {"/org/big", "/org/single", "/org/gated"} else None
        self.send_response(401 if secret else 200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which the hub is this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}/"}
    server.shutdown()
    server.server_close()


@pytest.mark.enable_socket
def test_the_hub_gives_config_and_index(hub: dict[str, str]) -> None:
    """Two small files are asked for, and no weights; a model of one file has no index."""
    assert read("org/big", hub) == Source(CONFIG, 7, "org/big on the hub, weights by the index")
    assert read("org/single", hub) == Source(CONFIG, 0, "org/single on the hub, weights by config.json")
    assert read("org/gated", hub | {"HUGGING_FACE_HUB_TOKEN": "hf_x"}).file_bytes == 7


@pytest.mark.enable_socket
def test_what_the_hub_refuses_is_told(hub: dict[str, str]) -> None:
    """A model behind a licence, one that is not there, and a hub that is not there."""
    with pytest.raises(PreconditionFailed, match="the hub does not give org/gated to you"):
        read("org/gated", hub)
    with pytest.raises(PreconditionFailed, match=r"the hub has no config\.json of org/none"):
        read("org/none", hub)
    with pytest.raises(PreconditionFailed, match=r"cannot ask http://127\.0\.0\.1:1 for org/big"):
        read("org/big", hub | {"HF_ENDPOINT": "http://127.0.0.1:1"})
    with pytest.raises(ConfigError, match="expected a web address"):
        read("org/big", hub | {"HF_ENDPOINT": "file:///etc"})
