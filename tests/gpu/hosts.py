"""Two namespace hosts with one GPU each, set up as two machines with a `.env` are: by environment alone."""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.gpu.place import Place

from shoal.engine.keys import ensure_key
from shoal.facts.process import read_boot_id
from shoal.host.base import Result
from shoal.host.local import LocalHost
from shoal.lab import cluster, namespace, record
from shoal.lab.cluster import Lab
from shoal.lab.init import Service, write_services
from shoal.lab.network import NETDEV, Net
from shoal.lab.plan import own
from shoal.lab.record import HostRecord, LabRecord
from shoal.state.run import NodeRecord, RunRecord

SUBNET = "192.168.146"
GCS, API, AGENT, SERVE = 6379, 8000, 8700, 8701
HEAD = f"{SUBNET}.1"
ENDPOINT = f"http://{HEAD}:{API}/v1"
# NCCL's multicast over NVSwitch reaches beyond this machine's own GPUs; and FlashInfer's sampler is compiled at the
# first start, for more than a minute.
QUIET = {"NCCL_NVLS_ENABLE": "0", "VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Wish:
    """What the hosts are to run: a model by its key, split so; nothing where ``services`` is empty."""

    model: str = ""
    tensor: int = 1
    pipeline: int = 2
    services: tuple[str, ...] = ("agent", "serve")
    settings: Mapping[str, str] = field(default_factory=dict)


def state_env(place: Place) -> dict[str, str]:
    """The environment in which the lab's functions find these hosts."""
    return {**os.environ, "SHOAL_STATE_DIR": str(place.work / "state")}


def node_env(place: Place, host: HostRecord, run_id: str, wish: Wish) -> dict[str, str]:
    """The environment of a node's agent."""
    folder = cluster.lab_dir(state_env(place))
    return {
        **os.environ,
        **QUIET,
        "RAY_MODE": host.role,
        "VLLM_HOST_IP": host.address,
        "RAY_ADDRESS": f"{HEAD}:{GCS}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "ray.token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "SHOAL_NODE_NAME": host.name,
        "SHOAL_NUM_GPUS": "1",
        "SHOAL_NUM_CPUS": "2",
        "SHOAL_CACHE_DIR": str(place.cache),
        "VLLM_CACHE_ROOT": str(place.cache / "vllm"),
        "SHOAL_RUN_ID": run_id,
        "SHOAL_WEDGED_AFTER": "15",
        "SHOAL_RESTART_WINDOW": "5",
        # NCCL tells hosts apart by this: two hosts of one kernel are one machine to it, and it would not use the wire.
        "NCCL_HOSTID": host.name,
        "CUDA_VISIBLE_DEVICES": str(host.number - 1),
        **own(host),
        **wish.settings,
    }


def serve_env(place: Place, env: Mapping[str, str], wish: Wish) -> dict[str, str]:
    """The environment of the supervisor on the head."""
    return {
        **env,
        "SHOAL_NODE_NAME": "engine",
        "SHOAL_EXPECT": ",".join(f"{SUBNET}.{number}:1" for number in (1, 2)),
        "SHOAL_API_KEY_FILE": str(cluster.lab_dir(state_env(place)) / "api.key"),
        "SHOAL_MODELS_FILE": str(place.models),
        "SHOAL_TENSOR_PARALLEL": str(wish.tensor),
        "SHOAL_PIPELINE_PARALLEL": str(wish.pipeline),
        "MODEL_NAME": wish.model,
    }


def _records(place: Place, tag: str, model: str) -> LabRecord:
    folder = cluster.lab_dir(state_env(place))
    hosts = tuple(
        HostRecord(
            name=f"n{number}", number=number, role=role, address=f"{SUBNET}.{number}", kind="namespace",
            folder=str(Path(f"/tmp/shoal-lab-{tag}") / f"n{number}"),
        )
        for number, role in ((1, "head"), (2, "worker"))
    )  # fmt: skip
    nodes = tuple(
        NodeRecord(
            name=host.name, role=host.role, address=host.address, gpus=1, agent_url=f"http://{host.address}:{AGENT}"
        )
        for host in hosts
    )
    run = RunRecord(
        run_id=secrets.token_hex(8), boot_id=read_boot_id(LocalHost()), cluster="lab", created=time.time(), model=model,
        endpoint=ENDPOINT, serve_url=f"http://{HEAD}:{SERVE}", temp_dir=f"/tmp/shoal-lab-{tag}",
        log_dir=str(folder / "logs"), api_key_file=str(folder / "api.key"), ray_address=f"{HEAD}:{GCS}", nodes=nodes,
    )  # fmt: skip
    made = () if namespace.RAY.exists() else (str(namespace.RAY),)
    return LabRecord(
        tag=tag, kind="namespace", engine="vllm", subnet=SUBNET, run=run, hosts=hosts, made=made
    )  # fmt: skip


def _services(place: Place, host: HostRecord, lab: LabRecord, wish: Wish) -> tuple[Service, ...]:
    env = node_env(place, host, lab.run.run_id, wish)
    run = (sys.executable, "-m", "shoal")
    known = {
        "agent": Service("agent", (*namespace.CONTAINER, *run, "agent"), env, f"{lab.run.log_dir}/{host.name}.log"),
        "serve": Service("serve", (*run, "serve"), serve_env(place, env, wish), f"{lab.run.log_dir}/engine.log"),
    }
    return tuple(known[name] for name in wish.services if name == "agent" or host.role == "head")


@contextmanager
def hosts(place: Place, wish: Wish) -> Iterator[Lab]:
    """The two hosts, with their services running; they are gone afterwards, whatever happens."""
    env = state_env(place)
    cluster.down(env)
    folder = cluster.lab_dir(env)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    made = _records(place, secrets.token_hex(2), wish.model)
    record.save(folder, made)
    try:
        yield _boot(place, Lab(folder, made), wish)
    finally:
        cluster.down(env)


def _boot(place: Place, lab: Lab, wish: Wish) -> Lab:
    run = lab.record.run
    namespace.RAY.mkdir(exist_ok=True)
    Path(run.temp_dir).mkdir(mode=0o700)
    ensure_key(Path(run.api_key_file))
    LocalHost().write(str(lab.folder / "ray.token"), secrets.token_hex(32), mode=0o600)
    LocalHost().write(f"{run.temp_dir}/hosts", namespace.hosts_file(lab.record.hosts))
    net = Net(lab.record.tag, SUBNET)
    namespace.carry_out(net.make_switch())
    for host in lab.record.hosts:
        namespace.carry_out(net.plug(host.name, host.number))
        host.disk.mkdir(parents=True)
        namespace.make_disk(host)
        services = write_services(_services(place, host, lab.record, wish))
        LocalHost().write(f"{host.folder}/services.json", services, mode=0o600)
    for host in lab.record.hosts:
        program = (sys.executable, "-m", "shoal.lab.init", f"{host.folder}/services.json")
        env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH")} | {"SHOAL_RUN_ID": run.run_id}
        booted = namespace.boot(net, host, program, env, lab.folder / "logs" / f"{host.name}.boot.log")
        lab = cluster.saved(lab, lab.record.with_host(booted))
    return lab


def on(
    lab: Lab, name: str, argv: Sequence[str], env: Mapping[str, str], seconds: float, *, clean: bool = True
) -> Result:
    """Run a command on a host, with that environment, as `docker exec` in the node's container would."""
    inner = namespace.inner(lab.host(name), lab.record.run.boot_id)
    pairs = [f"{key}={value}" for key, value in env.items()]
    words = ("env", "-i", *pairs) if clean else ("env", *pairs)
    return LocalHost().run((*namespace.enter_argv(inner), *words, *argv), timeout=seconds, ok=range(256))


def shoal(place: Place, lab: Lab, wish: Wish, words: Sequence[str], seconds: float, **more: str) -> Result:
    """A verb of shoal's on the head, with the environment of its supervisor."""
    head = lab.host("n1")
    env = serve_env(place, node_env(place, head, lab.record.run.run_id, wish), wish) | {"SHOAL_NODE_NAME": "n1"} | more
    place.say(f"n1$ shoal {' '.join(words)}{''.join(f'   # {key}={value}' for key, value in more.items())}")
    return on(lab, "n1", (sys.executable, "-m", "shoal", *words), env, seconds)


def nccl_logs(lab: Lab) -> dict[str, Path]:
    """What NCCL wrote on each host so far."""
    found = {}
    for host in lab.record.hosts:
        for log in sorted((host.disk / "state" / "nccl").rglob("*.log")):
            found[f"{host.name}-{log.name}"] = log
    return found


def mesh(name: str) -> dict[str, str]:
    """The interface, as somebody who knows it would set it by hand."""
    return {"NCCL_SOCKET_IFNAME": NETDEV, "GLOO_SOCKET_IFNAME": NETDEV, "NCCL_HOSTID": name}
