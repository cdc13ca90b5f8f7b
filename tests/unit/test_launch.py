"""The command and environment of vLLM's server."""

import json
from pathlib import Path

import pytest

from shoal.engine.launch import Request, argv, environment, not_carried, read_request
from shoal.errors import ConfigError
from shoal.spec.env_table import PER_NODE, VARIABLES

REQUEST = Request(
    "smollm2", "http://127.0.0.1:8000/v1", ("--model", "/m", "--port", "8000"), {"VLLM_HOST_IP": "10.0.0.1"}
)
FABRIC = "10.0.0.1"


def test_argv() -> None:
    """The server is started as a module of the given Python, with the request's arguments and no key."""
    assert argv("/py", REQUEST) == (
        "/py", "-m", "vllm.entrypoints.openai.api_server", "--model", "/m", "--port", "8000",
    )  # fmt: skip


def test_secrets_stay_out() -> None:
    """Secrets and empty variables do not reach the driver; paths to secrets do."""
    inherited = {
        "PATH": "/bin",
        "HF_TOKEN": "hf_x",
        "VLLM_API_KEY": "sk",
        "AWS_SECRET_ACCESS_KEY": "aws",
        "RAY_AUTH_TOKEN": "t",
        "RAY_AUTH_TOKEN_PATH": "/s/ray.token",
        "SHOAL_API_KEY_FILE": "/s/api.key",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert environment(inherited, REQUEST, FABRIC) == {
        "PATH": "/bin",
        "RAY_AUTH_TOKEN_PATH": "/s/ray.token",
        "SHOAL_API_KEY_FILE": "/s/api.key",
        "VLLM_HOST_IP": "10.0.0.1",
    }


def test_the_request_wins() -> None:
    """A variable of the request replaces the inherited one."""
    assert environment({"VLLM_HOST_IP": "1.1.1.1"}, REQUEST, FABRIC) == {"VLLM_HOST_IP": "10.0.0.1"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_loopback(address: str) -> None:
    """On a loopback address, and only there, the driver is told to keep it."""
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    assert environment({}, REQUEST, address)[name] == "0"
    assert name not in environment({}, REQUEST, FABRIC)


@pytest.mark.parametrize(
    ("vllm", "told"),
    [
        ("0.10.1.1+381074ae.nv25.09", None),
        ("0.16.0", None),
        ("0.17.1", "NCCL_DEBUG,NCCL_IB_TC"),
        ("0.19.1", "NCCL_DEBUG,NCCL_IB_TC"),
        ("0.20.2", "NCCL_DEBUG,NCCL_IB_TC"),
        ("0.21.0", None),
        ("0.32.0", None),
        ("0.33.0", None),
        (None, "NCCL_DEBUG,NCCL_IB_TC"),
    ],
)
def test_copied_variables(vllm: str | None, told: str | None) -> None:
    """A vLLM that reads the list is told the table's NCCL settings, but none of those that differ between nodes."""
    inherited = {"NCCL_DEBUG": "INFO", "NCCL_IB_TC": "106", "NCCL_IB_HCA": "mlx5_0", "NCCL_SOCKET_IFNAME": "eth0"}
    after = environment(inherited, REQUEST, FABRIC, vllm)
    copied = {"VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": told} if told else {}
    assert after == inherited | copied | {"VLLM_HOST_IP": "10.0.0.1"}


def test_not_carried() -> None:
    """vLLM is told not to copy what differs between nodes, nor any secret, by a sorted JSON list of names."""
    text = not_carried({"HF_TOKEN": "hf_x", "PATH": "/bin", "MY_PASSWORD": "p"})
    secrets = {row.name for row in VARIABLES if row.secret}
    assert json.loads(text) == sorted({*PER_NODE, *secrets, "HF_TOKEN", "MY_PASSWORD"})
    assert "hf_x" not in text


def test_a_request_comes_back(tmp_path: Path) -> None:
    """A request that was written as JSON is read back as it was."""
    file = tmp_path / "engine.json"
    file.write_text(REQUEST.to_json())
    assert read_request(str(file)) == REQUEST


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b"{}", b'{"model": "m", "endpoint": "e", "arguments": []}',
     b'{"model": "m", "endpoint": "e", "arguments": 5, "env": {}}',
     b'{"model": "m", "endpoint": "e", "arguments": [], "env": 5}'],
)  # fmt: skip
def test_no_request(tmp_path: Path, content: bytes) -> None:
    """A file that holds no request is refused with the name of the variable that points to it."""
    file = tmp_path / "engine.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_request(str(file))
    assert caught.value.what == f"SHOAL_ENGINE_PLAN={str(file)!r} is no engine plan"
    assert caught.value.why


def test_no_file(tmp_path: Path) -> None:
    """A plan that does not exist, or has no name, is refused in the same words."""
    for path in (str(tmp_path / "absent"), str(tmp_path), ""):
        with pytest.raises(ConfigError, match="is no engine plan"):
            read_request(path)
