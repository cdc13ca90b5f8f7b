"""The engine's request out of a head's settings."""

from pathlib import Path

import pytest

from shoal.engine import request as module
from shoal.engine.launch import Request
from shoal.engine.request import compose, obtain
from shoal.errors import ConfigError, PreconditionFailed
from shoal.facts.model_folder import ModelFolder
from shoal.log import EventLog
from shoal.plan.executor import MP_OPTIONS
from shoal.plan.models import choose
from shoal.plan.parallel import Parallel, check_model, over_gpus
from shoal.spec.env import ServeSettings, serve_settings
from shoal.spec.registry import ModelEntry, builtin
from shoal.state.status import ExecutorKind, Versions

TWO = {"VLLM_HOST_IP": "192.168.100.1", "SHOAL_EXPECT": "192.168.100.1:1,192.168.100.2:1"}
HERE = Versions(shoal="0", python="3.12.3", ray="2.60.0", vllm="0.32.0")


class Told:
    """A stream that keeps what is written to it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing to flush."""


def settings(**env: str) -> ServeSettings:
    """A head's settings."""
    return serve_settings(TWO | env)


def got(env: dict[str, str]) -> tuple[ServeSettings, Request, str]:
    """What `obtain` gives for an environment, and what it logs."""
    told = Told()
    after, request = obtain(serve_settings(env), EventLog(told))  # type: ignore[arg-type]
    return after, request, told.text


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with GPUs' vLLM and Ray, on a machine without a GPU."""
    monkeypatch.setattr(module, "versions", lambda: HERE)
    monkeypatch.setattr(module, "is_cpu_build", lambda: False)
    monkeypatch.setattr("shoal.facts.gpu.read", lambda *_: None)


def test_a_folder_is_served_by_its_own_name() -> None:
    """The request holds address, ports, sizes and the registry's options, and no key."""
    entry = ModelEntry("big", "/models/big", options={"max-model-len": 8192, "trust-remote-code": False})
    made = compose(settings(), entry, "/models/big", Parallel(1, 2, "x"), cpu=False, offline=True)
    assert made == Request(
        model="big",
        endpoint="http://192.168.100.1:8000/v1",
        arguments=(
            "--model", "/models/big", "--served-model-name", "big", "--host", "192.168.100.1", "--port", "8000",
            "--middleware", "shoal.engine.guard.KeyGuard", "--distributed-executor-backend", "ray",
            "--pipeline-parallel-size", "2", "--tensor-parallel-size", "1",
            "--max-model-len", "8192", "--no-trust-remote-code",
        ),
        env={"VLLM_HOST_IP": "192.168.100.1", "RAY_ADDRESS": "192.168.100.1:6379", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def test_on_cpu_the_defaults_of_cpus_come_first() -> None:
    """The CPU build gets its own defaults, and the registry's options win."""
    entry = ModelEntry("m", "org/m", options={"kv-cache-memory-bytes": 1})
    made = compose(settings(), entry, "org/m", Parallel(1, 1, "x"), cpu=True, offline=False)
    assert made.arguments[-4:] == ("--compilation-config", '{"mode": 0}', "--kv-cache-memory-bytes", "1")
    assert "HF_HUB_OFFLINE" not in made.env


@pytest.mark.parametrize(
    ("asked", "listens", "reached"),
    [
        ("", "192.168.100.1", "192.168.100.1"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.5"),
        ("0.0.0.0", "0.0.0.0", "192.168.100.1"),
        ("fd00::5", "fd00::5", "[fd00::5]"),
    ],
)
def test_the_api_listens_where_it_is_asked_to(asked: str, listens: str, reached: str) -> None:
    """The default is the fabric's address; the supervisor itself asks an address that answers."""
    made = compose(
        settings(SHOAL_API_HOST=asked, SHOAL_API_PORT="9000"),
        ModelEntry("m", "org/m"), "org/m", Parallel(1, 1, "x"), cpu=False, offline=False,
    )  # fmt: skip
    assert made.arguments[made.arguments.index("--host") + 1] == listens
    assert made.endpoint == f"http://{reached}:9000/v1"


def test_an_api_host_that_is_no_address_is_refused() -> None:
    """A name is no address to listen on."""
    with pytest.raises(ConfigError, match="SHOAL_API_HOST='localhost'"):
        settings(SHOAL_API_HOST="localhost")


@pytest.mark.parametrize(
    ("gpus", "tensor", "pipeline", "sizes"),
    [
        ([1], None, None, (1, 1)),
        ([8], None, None, (8, 1)),
        ([1, 1], None, None, (1, 2)),
        ([8, 8], None, None, (8, 2)),
        ([4, 2], None, None, (2, 3)),
        ([1, 1], 2, None, (2, 1)),
        ([4, 4], None, 4, (2, 4)),
        ([4, 4], 2, 2, (2, 2)),
    ],
)
def test_sizes_of_the_split(gpus: list[int], tensor: int | None, pipeline: int | None, sizes: tuple[int, int]) -> None:
    """Tensor parallel within a node and a pipeline between them, unless asked otherwise."""
    made = over_gpus(gpus, tensor, pipeline)
    assert (made.tensor, made.pipeline) == sizes


@pytest.mark.parametrize(
    ("gpus", "tensor", "pipeline", "told"),
    [
        ([1, 1], 4, None, r"4 rank\(s\) are asked for, and SHOAL_EXPECT names 2 GPU\(s\) on 2 node\(s\)"),
        ([4, 4], 3, None, r"SHOAL_TENSOR_PARALLEL=3 does not divide 8 GPU\(s\) on 2 node\(s\)"),
        ([1, 1, 1], None, 2, r"SHOAL_PIPELINE_PARALLEL=2 does not divide 3 GPU\(s\) on 3 node\(s\)"),
        ([0], None, None, r"1 rank\(s\) are asked for, and SHOAL_EXPECT names 0 GPU\(s\) on 1 node\(s\)"),
    ],
)
def test_a_split_that_cannot_be(gpus: list[int], tensor: int | None, pipeline: int | None, told: str) -> None:
    """More ranks than GPUs, or a rest: told by the variable's name."""
    with pytest.raises(ConfigError, match=told):
        over_gpus(gpus, tensor, pipeline)


def test_a_model_that_cannot_be_split_so() -> None:
    """A pipeline longer than the model, and heads that do not divide, are told before anything starts."""
    check_model(Parallel(3, 30, "x"), 30, 9)
    check_model(Parallel(64, 64, "x"), None, None)
    with pytest.raises(ConfigError, match="a pipeline of 31 stages is longer than the model's 30 layers"):
        check_model(Parallel(1, 31, "x"), 30, 9)
    with pytest.raises(ConfigError, match="tensor parallel over 2 GPUs does not divide the model's 9 attention heads"):
        check_model(Parallel(2, 1, "x"), 30, 9)


def test_an_image_without_what_is_asked_for_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's supervisor looks at the image first: its Ray, or what its vLLM's parser knows instead."""
    monkeypatch.setattr(module, "versions", lambda: HERE.model_copy(update={"ray": None}))
    monkeypatch.setattr(module, "known_options", lambda *_: frozenset({"nnodes", "node-rank"}))
    with pytest.raises(PreconditionFailed, match="there is no Ray in this image"):
        got(TWO | {"SHOAL_EXECUTOR": "ray"})
    with pytest.raises(PreconditionFailed, match="does not know --master-addr, --master-port, --headless"):
        got(TWO | {"MODEL_NAME": "org/model"})


def test_an_image_without_ray_serves_by_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray is missing and vLLM's parser knows the words, the request is one for `mp`, and the log says so."""
    monkeypatch.setattr(module, "versions", lambda: HERE.model_copy(update={"ray": None}))
    monkeypatch.setattr(module, "known_options", lambda *_: frozenset(MP_OPTIONS))
    _, request, told = got(TWO | {"MODEL_NAME": "org/model"})
    where = request.arguments.index("--distributed-executor-backend")
    assert (request.executor, request.arguments[where + 1]) == (ExecutorKind.MP, "mp")
    assert "executor mp: SHOAL_EXECUTOR=auto, Ray not installed" in told


def test_a_head_without_a_model_is_told() -> None:
    """MODEL_NAME must be set where no plan is named."""
    with pytest.raises(ConfigError, match="MODEL_NAME is not set"):
        got(TWO)


def test_a_name_of_the_hub_is_served_by_its_whole_name() -> None:
    """A name of the hub goes to vLLM as it is, over all nodes that are expected, and nobody is kept from the hub."""
    _, request, told = got(TWO | {"MODEL_NAME": "org/model"})
    assert request.model == "org/model"
    assert request.arguments[:4] == ("--model", "org/model", "--served-model-name", "org/model")
    assert "HF_HUB_OFFLINE" not in request.env
    assert "org/model: org/model (a model folder, or a name on the hub)" in told
    assert "tensor parallel 1, pipeline 2: 2 GPU(s) on 2 node(s)" in told


def test_a_key_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of models.yaml brings its folder and its options, which the installed vLLM must know."""
    folder, registry = tmp_path / "weights", tmp_path / "models.yaml"
    folder.mkdir()
    registry.write_text(f"mine:\n  model: {folder}\n  description: ours\n  max-model-len: 512\n")
    monkeypatch.setattr(module, "known_options", lambda *_: frozenset({"max-model-len"}))
    whole = ModelFolder(folder, num_hidden_layers=30, num_attention_heads=9)
    monkeypatch.setattr(module, "inspect", lambda _: whole)
    env = TWO | {"MODEL_NAME": "mine", "SHOAL_MODELS_FILE": str(registry)}
    _, request, told = got(env)
    assert request.arguments[-2:] == ("--max-model-len", "512")
    assert request.env["HF_HUB_OFFLINE"] == "1"
    assert f"mine: {folder} (ours)" in told
    registry.write_text(f"mine:\n  model: {folder}\n  max-model-length: 512\n")
    with pytest.raises(ConfigError, match='unknown option "max-model-length" of model mine; did you mean "max-mod'):
        got(env)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smolm2", 'unknown model "smolm2"\nwhy: did you mean "smollm2"'),
        ("/models/none", "model none: there is no folder /models/none"),
    ],
)
def test_a_model_that_is_not_there(name: str, told: str) -> None:
    """A wrong key and a folder that is not there are told by name, with what mends it."""
    with pytest.raises((ConfigError, PreconditionFailed)) as raised:
        got(TWO | {"MODEL_NAME": name})
    assert str(raised.value).startswith(told)
    assert "MODEL_NAME" in raised.value.fix


def test_a_folder_that_is_not_whole_is_told(tmp_path: Path) -> None:
    """A folder without weights is told before anything starts."""
    with pytest.raises(PreconditionFailed, match=f"{tmp_path} is not whole"):
        got(TWO | {"MODEL_NAME": str(tmp_path)})


def test_without_a_list_of_nodes_this_one_serves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHOAL_EXPECT left out: this node, with what it offers to Ray; none to offer is an error."""
    alone = {"VLLM_HOST_IP": "192.168.100.1", "MODEL_NAME": "org/model"}
    after, request, _ = got(alone | {"SHOAL_NUM_GPUS": "2"})
    assert after.expect == (("192.168.100.1", 2),)
    assert request.arguments[-1] == "2"
    with pytest.raises(ConfigError, match="no GPU is seen here, and SHOAL_EXPECT names no node"):
        got(alone)
    monkeypatch.setattr("shoal.facts.gpu.read", lambda *_: ("a", "b", "c", "d"))
    assert got(alone)[0].expect == (("192.168.100.1", 4),)


def test_a_plan_takes_the_place_of_a_name(tmp_path: Path) -> None:
    """Where SHOAL_ENGINE_PLAN names a file, that is the request, whatever MODEL_NAME says."""
    plan, wanted = tmp_path / "engine.json", Request("m", "http://h/v1", ("--model", "/m"), {"A": "b"})
    plan.write_text(wanted.to_json())
    assert got(TWO | {"SHOAL_ENGINE_PLAN": str(plan), "MODEL_NAME": "no such"})[1] == wanted


def test_which_name_a_model_is_served_by() -> None:
    """A key by itself, a folder by its own name, a model of the hub by its whole name."""
    words = ("smollm2", "/models/a", "./b", "org/model")
    assert [choose(word, builtin()).key for word in words] == ["smollm2", "a", "b", "org/model"]
