"""What goes wrong with a deployment folder is told in one line with its fix, and is no hot loop."""

import json
from collections.abc import Iterator

import pytest
from tests.docker.conftest import HEAD, LONER, WORKER, Boxes
from tests.docker.deployment import Deployment, document
from tests.docker.machine import WITHOUT_RAY, until

pytestmark = pytest.mark.docker
GOOD = {"VLLM_HOST_IP": LONER, "RAY_ADDRESS": f"{HEAD}:6379"}


@pytest.fixture
def worker(boxes: Boxes) -> Iterator[Deployment]:
    """A worker's folder on the third machine, rendered anew; down at the end."""
    found = Deployment(boxes.loner, "worker", "tried")
    found.render()
    yield found
    found.compose("down", "-t", "5")


def start(folder: Deployment, values: dict[str, str], line_end: str = "\n") -> None:
    """Fill `.env` in, and start."""
    folder.fill(GOOD | values, line_end)
    folder.compose("up", "-d")


AGAIN = "; fix: correct the environment (.env) and start again"
NO_ADDRESS = f"VLLM_HOST_IP is not set: this node's fabric address; must be local to this machine{AGAIN}"
NO_PORT = (
    f"RAY_ADDRESS='{HEAD}': Value error, expected ADDRESS:PORT; expected the head as `ADDRESS:PORT`; "
    f"on the head: derived, port 6379{AGAIN}"
)
ITSELF = f"RAY_ADDRESS='{LONER}:6379': it points at this worker itself; fix: set RAY_ADDRESS to the head's ADDRESS:PORT"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"VLLM_HOST_IP": ""}, NO_ADDRESS),
        ({"RAY_ADDRESS": HEAD}, NO_PORT),
        ({"RAY_ADDRESS": f"{LONER}:6379"}, ITSELF),
    ],
    ids=["no address", "no port", "itself"],
)
def test_a_wrong_setting_is_one_line(worker: Deployment, values: dict[str, str], line: str) -> None:
    """Nothing is started; the line names the variable, what was expected, and what to do."""
    start(worker, values)
    said = worker.machine.wait_log("ray-worker", "CONFIG", 30).splitlines()
    assert [text[9:] for text in said] == [f"CONFIG     error: {line}"]


def test_windows_line_ends_do_no_harm(worker: Deployment) -> None:
    """A `.env` with CR LF is read as if it had none: the worker waits for its head."""
    start(worker, {}, "\r\n")
    said = worker.machine.wait_log("ray-worker", "WAIT_HEAD", 60)
    assert f"VLLM_HOST_IP={LONER} (set)" in said
    assert "\r" not in said


def test_an_address_of_another_machine_is_waited_for(worker: Deployment) -> None:
    """The line says what is missing and what there is; the container is healthy meanwhile; a stop ends it with 0."""
    machine = worker.machine
    start(worker, {"VLLM_HOST_IP": WORKER})
    said = machine.wait_log("ray-worker", "waiting for the address", 30)
    assert (
        f"PREFLIGHT  warning: waiting for the address {WORKER}: no interface of this machine has it yet; "
        f"there is {LONER} (fab0). Bring the link up, or correct VLLM_HOST_IP in .env" in said
    )
    assert document(machine, "http://127.0.0.1:8700/status")["stage"] == "PREFLIGHT"
    until(
        lambda: machine.inspect("ray-worker")["State"]["Health"]["Status"] == "healthy",
        40,
        lambda: str(machine.inspect("ray-worker")["State"]),
    )
    worker.compose("stop")
    assert machine.inspect("ray-worker")["State"]["ExitCode"] == 0


def test_an_address_that_comes_later_is_taken(worker: Deployment) -> None:
    """The link comes up after the container, as at a boot: the agent goes on by itself."""
    machine, later = worker.machine, "192.168.100.4"
    start(worker, {"VLLM_HOST_IP": later})
    machine.wait_log("ray-worker", "waiting for the address", 30)
    machine.ok("ip", "address", "add", f"{later}/24", "dev", "fab0")
    try:
        said = machine.wait_log("ray-worker", "WAIT_HEAD", 30)
        assert f"the address {later} is there" in said
        assert f"NCCL_SOCKET_IFNAME: =fab0 (chosen: this interface has {later})" in said
    finally:
        machine.ok("ip", "address", "del", f"{later}/24", "dev", "fab0")


def test_an_image_without_the_ray_that_is_asked_for_is_named(worker: Deployment) -> None:
    """The agent says so before anything starts, and ends with 1 only after a pause."""
    machine = worker.machine
    start(worker, {"SHOAL_IMAGE": WITHOUT_RAY, "SHOAL_EXECUTOR": "ray"})
    said = machine.wait_log("ray-worker", "FAILED", 30)
    assert "FAILED     error: there is no Ray in this image, beside vLLM " in said
    assert "fix: set SHOAL_EXECUTOR=mp, or SHOAL_IMAGE to an image with Ray" in said
    until(
        lambda: machine.inspect("ray-worker")["RestartCount"] >= 1,
        60,
        lambda: str(machine.inspect("ray-worker")["State"]),
    )
    assert "No module named" not in machine.logs("ray-worker")


def test_json_for_machines(worker: Deployment) -> None:
    """`SHOAL_LOG=json`: each line is one object with time, level, event and message; a secret's value is in none."""
    start(worker, {"SHOAL_LOG": "json", "HUGGING_FACE_HUB_TOKEN": "hf_notfortheeyesofothers"})
    lines = [json.loads(line) for line in worker.machine.wait_log("ray-worker", "wait_head", 60).splitlines()]
    assert all({"time", "level", "event", "message"} <= line.keys() for line in lines)
    assert "HUGGING_FACE_HUB_TOKEN=******** (set)" in [line["message"] for line in lines]
    assert "hf_notfortheeyesofothers" not in str(lines)
