"""The container deployments: `deploy/` is what the plan says, and Compose takes it."""

import json
import re
import subprocess
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from shoal.plan.container import PROFILES, ROLES, ContainerPlan, Key, Profile, Role, plan_container
from shoal.plan.variables import settings, variables
from shoal.render.compose import compose_yaml, env_example, files, scalar
from shoal.spec.env import TABLE, agent_settings, serve_settings

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data"
ALL = list(product(ROLES, PROFILES))
INTERPOLATION = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# Compose reads it to choose the image; that the agent knows it is the work of the environment's table.
COMPOSE_ONLY = {"SHOAL_IMAGE"}


@cache
def document(role: Role, profile: Profile) -> dict[str, Any]:
    """A compose file as Compose reads it, before it fills in variables."""
    loaded: dict[str, Any] = yaml.safe_load(compose_yaml(plan_container(role, profile)))
    return loaded


def service(role: Role, profile: Profile, name: str = "ray-node") -> dict[str, Any]:
    found: dict[str, Any] = document(role, profile)["services"][name]
    return found


def dotenv(text: str) -> dict[str, str]:
    """The variables that a `.env` without quotes sets."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def inside(role: Role, profile: Profile, name: str = "ray-node") -> dict[str, str]:
    """The environment in the container after `cp .env.example .env`."""
    given = dotenv(env_example(plan_container(role, profile)))

    def fill(text: str) -> str:
        return INTERPOLATION.sub(lambda found: given.get(found[1]) or found[2] or "", text)

    listed = service(role, profile, name)["environment"]
    return given | {key: fill(value) for key, value in listed.items() if value is not None}


@pytest.mark.parametrize("role", ROLES)
def test_deploy_is_what_render_writes(role: Role, request: pytest.FixtureRequest) -> None:
    """The folders in `deploy/` are those of the default profile; `--update` writes them anew."""
    folder = ROOT / "deploy" / role
    wanted = files(plan_container(role, "nvidia-rdma"))
    if request.config.getoption("--update"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {name: (folder / name).read_text(encoding="utf-8") for name in wanted} == wanted


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_other_profiles_are_golden_too(role: Role, profile: Profile, request: pytest.FixtureRequest) -> None:
    """Each role and profile gives the compose file that lies in `tests/golden/compose`."""
    file = ROOT / "tests/golden/compose" / f"{role}-{profile}.yaml"
    text = compose_yaml(plan_container(role, profile))
    if request.config.getoption("--update"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_the_compose_specification_allows_every_key(role: Role, profile: Profile) -> None:
    """The files are valid by the Compose specification's schema, in the state in which docker-compose 1.29.2 has it."""
    # The file is docker-compose's own (Apache-2.0). Compose v2 allows all that it allows of the keys used here.
    rules = json.loads((DATA / "compose-spec-1.29.2.json").read_text(encoding="utf-8"))
    kind = jsonschema.Draft201909Validator(rules)
    assert [error.message for error in kind.iter_errors(document(role, profile))] == []


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_never_privileged(role: Role, profile: Profile) -> None:
    """No service is privileged, shares the process table, or listens by a port mapping."""
    for found in document(role, profile)["services"].values():
        assert found.keys() & {"privileged", "pid", "ports"} == set()


@pytest.mark.parametrize("role", ROLES)
def test_the_reference_profile_has_every_key_of_the_design(role: Role) -> None:
    """The default profile has the keys, devices, mounts and rights of the reference deployment."""
    found = service(role, "nvidia-rdma")
    short = [volume for volume in found["volumes"] if isinstance(volume, str)]
    long = [volume for volume in found["volumes"] if not isinstance(volume, str)]
    assert {key: found[key] for key in ("container_name", "network_mode", "ipc", "restart", "runtime", "init")} == {
        "container_name": f"ray-${{RAY_MODE:-{role}}}",
        "network_mode": "host",
        "ipc": "host",
        "restart": "unless-stopped",
        "runtime": "nvidia",
        "init": True,
    }
    assert found["image"] == "${SHOAL_IMAGE:-nvcr.io/nvidia/vllm:25.09-py3}"
    assert found["devices"] == [
        "/dev/infiniband/rdma_cm",
        "/dev/infiniband/uverbs0",
        "/dev/infiniband:/dev/infiniband",
    ]
    assert short[:4] == [
        "/sys/class/infiniband:/sys/class/infiniband:ro",
        "/sys/class/net:/sys/class/net:ro",
        "/etc/rdma:/etc/rdma:ro",
        "/tmp/ray:/tmp/ray",
    ]
    own = [("./shoal.pyz", "/opt/shoal/shoal.pyz"), ("./models.yaml", "/etc/shoal/models.yaml")]
    assert long == [
        {"type": "bind", "source": source, "target": target, "read_only": True}
        for source, target in own[: 2 if role == "head" else 1]
    ]
    assert found["ulimits"] == {"memlock": -1, "stack": 67108864}
    assert found["cap_add"] == ["IPC_LOCK", "SYS_NICE", "SYS_RESOURCE"]
    assert found["security_opt"] == ["apparmor:unconfined"]
    assert found["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    ]
    assert found["healthcheck"]["test"] == ["CMD", "python3", "/opt/shoal/shoal.pyz", "health", "agent"]
    assert found["logging"]["options"] == {"max-size": "50m", "max-file": "5"}
    assert found["env_file"] == [".env"]
    assert found["stop_grace_period"] == "60s"


@pytest.mark.parametrize("role", ROLES)
def test_what_the_other_profiles_leave_out(role: Role) -> None:
    """Without RDMA nothing of it is asked for; without GPUs neither are they, nor any right."""
    full = set(service(role, "nvidia-rdma"))
    tcp, cpu = service(role, "nvidia-tcp"), service(role, "cpu")
    assert full - set(tcp) == {"devices", "security_opt"}
    assert full - set(cpu) == {"devices", "security_opt", "runtime", "deploy", "ulimits", "cap_add"}
    assert tcp["ulimits"] == {"stack": 67108864}
    assert tcp["cap_add"] == ["SYS_NICE"]
    assert tcp["environment"]["NCCL_IB_DISABLE"] == "1"
    for found in (tcp, cpu):
        assert "infiniband" not in json.dumps(found)
    assert [name for name in cpu["environment"] if name.startswith(("NCCL_", "NVIDIA_", "CUDA_"))] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_has_all_that_its_node_has(profile: Profile) -> None:
    """`vllm` on the head differs from `ray-node` in name, command, health check and order only."""
    node, engine = service("head", profile), service("head", profile, "vllm")
    assert {key for key in engine if engine[key] != node.get(key)} == {
        "container_name",
        "command",
        "environment",
        "healthcheck",
        "depends_on",
    }
    assert engine["environment"] == node["environment"] | {"SHOAL_NODE_NAME": "engine"}
    assert (engine["command"], engine["healthcheck"]["test"][-1]) == (["serve"], "serve")


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_the_agent_takes_what_the_example_gives(role: Role, profile: Profile) -> None:
    """After `cp .env.example .env`, agent and supervisor accept their environment."""
    env = {name: value for name, value in inside(role, profile).items() if name not in COMPOSE_ONLY}
    assert agent_settings(env).mode == role
    if role == "head":
        env = {name: value for name, value in inside(role, profile, "vllm").items() if name not in COMPOSE_ONLY}
        assert [address for address, _ in serve_settings(env).expect] == ["192.168.100.1", "192.168.100.2"]


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_only_settings_of_shoal_are_named(role: Role, profile: Profile) -> None:
    """Each `SHOAL_` name in a compose file or in `.env.example` is one of the environment's table."""
    plan = plan_container(role, profile)
    named = set(re.findall(r"\bSHOAL_[A-Z_]+", compose_yaml(plan) + env_example(plan)))
    assert named - {row.name for row in TABLE} - COMPOSE_ONLY == set()


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_defaults_are_those_of_the_table(role: Role, profile: Profile) -> None:
    """A default in `.env.example` is the one that the agent has by itself; logical GPUs are the exception."""
    known = {row.name: row.default or "" for row in TABLE}
    ours = {
        item.name: item.default
        for section in variables(role, rdma=profile == "nvidia-rdma", gpu=profile != "cpu")
        for item in section.variables
        if item.name in known and item.name not in {"RAY_MODE", "SHOAL_NUM_GPUS"} and not item.example
    }
    assert ours == {name: known[name] for name in ours}


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_nothing_is_set_twice(role: Role, profile: Profile) -> None:
    """No variable is in two sections, or is both passed on and fixed."""
    names = [item.name for item in settings(role, rdma=profile == "nvidia-rdma", gpu=profile != "cpu")]
    assert len(names) == len(set(names))


def start(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The entry point's script, with its paths below ``folder`` and no patience."""
    shell, option, script, name = service("worker", "cpu")["entrypoint"]
    script = script.replace("$$", "$").replace("sleep 60", ":").replace("exec $e python3", "exec $e echo python3")
    for place in ("/opt/shoal/", "/opt/nvidia/"):
        script = script.replace(place, f"{folder}/")
    argv = [shell, option, script, name, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)


def test_the_entry_point_runs_shoal(tmp_path: Path) -> None:
    """shoal.pyz is run with the command's words."""
    (tmp_path / "shoal.pyz").touch()
    assert start(tmp_path, "agent").stdout == f"python3 {tmp_path}/shoal.pyz agent\n"


def test_the_entry_point_goes_through_the_images_own(tmp_path: Path) -> None:
    """Where the image has NVIDIA's entry point, that one gets the command to run."""
    (tmp_path / "shoal.pyz").touch()
    theirs = tmp_path / "nvidia_entrypoint.sh"
    theirs.write_text('#!/bin/sh\necho through\nexec "$@"\n')
    theirs.chmod(0o755)
    assert start(tmp_path, "serve").stdout == f"through\npython3 {tmp_path}/shoal.pyz serve\n"


def test_the_entry_point_names_a_missing_file(tmp_path: Path) -> None:
    """A folder in the place of shoal.pyz, as Compose makes one, is named; exit code 78."""
    (tmp_path / "shoal.pyz").mkdir()
    done = start(tmp_path, "agent")
    assert (done.returncode, done.stdout) == (78, "shoal.pyz is no file: see README.md\n")


def test_an_empty_variable_is_not_handed_in() -> None:
    """A variable without a default is passed on only where it is set: an empty one would mean something to CUDA."""
    found = service("worker", "nvidia-rdma")["environment"]
    assert found["CUDA_VISIBLE_DEVICES"] is None
    assert found["NCCL_IB_HCA"] is None
    assert found["NCCL_IB_TC"] == "${NCCL_IB_TC:-106}"


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_three_lines_are_to_be_edited(role: Role, profile: Profile) -> None:
    """The example sets three lines before all others, and no secret."""
    example = dotenv(env_example(plan_container(role, profile)))
    third = {"worker": ["RAY_ADDRESS", "MODEL_CACHE"], "head": ["SHOAL_EXPECT", "MODEL_NAME"]}[role]
    assert list(example) == ["VLLM_HOST_IP", *third, "RAY_MODE"]


def unexplained(keys: tuple[Key, ...], path: str = "") -> list[str]:
    """Leaves for which neither they nor a key above gives a reason; what is merged in has none to give."""
    out = []
    for key in keys:
        if not key.why and key.name != "<<":
            out += unexplained(key.keys, f"{path}/{key.name}") if key.keys else [f"{path}/{key.name}"]
    return out


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_every_key_has_a_reason(role: Role, profile: Profile) -> None:
    """Each key of a service says why it is there, or stands below one that does."""
    plan: ContainerPlan = plan_container(role, profile)
    assert [path for found in plan.services for path in unexplained(found.keys)] == []


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_lines_fit_a_screen(role: Role, profile: Profile) -> None:
    """No line of a rendered file is longer than 120 characters."""
    text = "\n".join(files(plan_container(role, profile)).values())
    assert [line for line in text.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize(
    "text", ["host", "a: b", "yes", "0", "1.5", "60s", "-c", "", "a #b", "${A:-b}", 'say "x"', "~"]
)
def test_scalars_come_back_as_text(text: str) -> None:
    """What is written as a scalar is read back as the same text."""
    assert yaml.safe_load(scalar(text)) == text
