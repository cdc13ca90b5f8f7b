"""``shoal lab up`` and ``shoal lab down``: hosts on one machine, with the real agent and supervisor on them."""

import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal.engine.keys import ensure_key
from shoal.engine.models import resolve
from shoal.errors import AlreadyRunning, NotRunning, PreconditionFailed, ShoalError, StartFailed, UsageError
from shoal.facts.process import read_boot_id
from shoal.facts.versions import versions
from shoal.host.local import LocalHost, spawn_daemon
from shoal.lab import namespace, plan, processes, record
from shoal.lab.init import write_services
from shoal.lab.network import Net
from shoal.lab.record import HostRecord, LabRecord
from shoal.ops import sweep
from shoal.ops.local import TEMP_ROOT, bringing_up, run_record
from shoal.ops.snapshot import snapshot
from shoal.plan.local import LocalSpec, plan_local
from shoal.plan.models import DEFAULT
from shoal.spec.environ import cache_dir, state_dir
from shoal.spec.registry import builtin
from shoal.state.status import ClusterState, ClusterStatus

RUN_SECONDS = 3600.0


@dataclass(frozen=True)
class Lab:
    """A lab that is up: its record, and the folder that holds it."""

    folder: Path
    record: LabRecord

    @property
    def net(self) -> Net:
        """The lab's network."""
        return Net(self.record.tag, self.record.subnet)

    def host(self, name: str) -> HostRecord:
        """The host of that name; ``head`` is the first.

        Raises:
            UsageError: there is none.
        """
        wanted = "n1" if name == "head" else name
        for host in self.record.hosts:
            if host.name == wanted:
                return host
        names = ", ".join(host.name for host in self.record.hosts)
        raise UsageError(f'no host "{name}" in the lab', fix=f"one of: {names}")


def lab_dir(env: Mapping[str, str]) -> Path:
    """The lab's folder."""
    return state_dir(dict(env)) / "lab"


def current(env: Mapping[str, str]) -> Lab:
    """The lab that is up.

    Raises:
        NotRunning: there is none.
    """
    folder = lab_dir(env)
    found = record.load(folder)
    if found is None:
        raise NotRunning("no lab is up", fix="shoal lab up")
    return Lab(folder, found)


def up(wish: plan.Wish, env: Mapping[str, str], report: Callable[[str], None]) -> Lab:
    """Make the hosts and start them; it returns before the engine is ready.

    Raises:
        ShoalError: why not. What had been made is gone again.
    """
    folder = lab_dir(env)
    plan.check_hosts(wish.hosts)
    with bringing_up(folder):
        if record.load(folder) is not None:
            raise AlreadyRunning("a lab is up already", fix="shoal lab down")
        _check(wish)
        tag = secrets.token_hex(2)
        places = plan.Places(folder, TEMP_ROOT / f"shoal-lab-{tag}", cache_dir(dict(env)))
        lab = _written(wish, tag, places, _spec(wish, places, report), env)
        try:
            _make(lab, report)
            for host in lab.record.hosts:
                lab = boot(lab, host)
        except BaseException:
            down(env)
            raise
    return lab


def _check(wish: plan.Wish) -> None:
    if versions().ray is None or (wish.engine == "vllm" and versions().vllm is None):
        raise PreconditionFailed("vLLM and Ray are not installed in this Python", why=sys.executable, fix="make engine")
    if wish.kind == "namespace":
        namespace.require(wish.subnet)


def _spec(wish: plan.Wish, places: plan.Places, report: Callable[[str], None]) -> LocalSpec:
    model, path = plan.SIMULATED, plan.SIMULATED.model
    if wish.engine == "vllm":
        model = builtin()[DEFAULT]
        path = str(resolve(model, places.cache, LocalHost(), report, sys.executable))
    return plan.local_spec(wish, places, model, path, secrets.token_hex(8))


def _written(wish: plan.Wish, tag: str, places: plan.Places, spec: LocalSpec, env: Mapping[str, str]) -> Lab:
    """The record of all that is going to be made, and then everything that the hosts will read."""
    cluster = plan_local(spec)
    hosts = plan.hosts_of(cluster, wish.kind, places)
    run = run_record(cluster, spec)
    names = {host.address: host.name for host in hosts}
    nodes = tuple(node.model_copy(update={"name": names[node.address]}) for node in run.nodes)
    found = LabRecord(
        tag=tag,
        kind=wish.kind,
        engine=wish.engine,
        subnet=spec.subnet,
        run=run.model_copy(update={"cluster": "lab", "nodes": nodes}),
        hosts=hosts,
        clock=wish.clock,
        made=() if wish.kind == "loopback" or namespace.RAY.exists() else (str(namespace.RAY),),
    )
    record.save(places.state, found)
    _clear(places.logs)
    places.hosts.mkdir(mode=0o700)
    ensure_key(places.state / "api.key")
    write = LocalHost().write
    write(str(places.state / "ray.token"), secrets.token_hex(32), mode=0o600)
    write(str(places.state / "engine.json"), plan.request_of(cluster, wish).to_json(), mode=0o600)
    write(str(places.hosts / "hosts"), namespace.hosts_file(hosts))
    for host in hosts:
        host.disk.mkdir(parents=True)
        wanted = plan.services(cluster, host, places.logs, sys.executable, env, wish)
        write(f"{host.folder}/services.json", write_services(wanted), mode=0o600)
    return Lab(places.state, found)


def _clear(logs: Path) -> None:
    for log in logs.glob("*.log"):
        log.unlink()


def _make(lab: Lab, report: Callable[[str], None]) -> None:
    """Disks, and for namespace hosts the network between them."""
    if lab.record.kind == "loopback":
        for host in lab.record.hosts:
            namespace.fill_disk(host)
        return
    report(f"network {lab.record.subnet}.0/24, {len(lab.record.hosts)} namespace hosts")
    namespace.RAY.mkdir(exist_ok=True)
    namespace.carry_out(lab.net.make_switch())
    for host in lab.record.hosts:
        namespace.carry_out(lab.net.plug(host.name, host.number))
        namespace.make_disk(host)


def boot(lab: Lab, host: HostRecord) -> Lab:
    """Switch a host on."""
    program = (sys.executable, "-m", "shoal.lab.init", f"{host.folder}/services.json")
    log = lab.folder / "logs" / f"{host.name}.boot.log"
    # The mark by which leftovers are found; the services have an environment of their own.
    env = {"PATH": _path(), "SHOAL_RUN_ID": lab.record.run.run_id}
    if host.kind == "namespace":
        started = namespace.boot(lab.net, host, program, env, log)
    else:
        pid = spawn_daemon(program, env=env, cwd=Path(host.folder), log=log)
        started = host.model_copy(update={"boot": sweep.record(host.name, "boot", pid)})
    return saved(lab, lab.record.with_host(started))


def _path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def saved(lab: Lab, changed: LabRecord) -> Lab:
    """The lab with another record, which is written."""
    record.save(lab.folder, changed)
    return Lab(lab.folder, changed)


def power_off(lab: Lab, host: HostRecord) -> Lab:
    """Switch a host off, as if its plug were pulled: no process is asked, ``/dev/shm`` is empty afterwards."""
    family = processes.of_host(host, lab.record.run.boot_id)
    # The first process goes first, else it would start its services again.
    left = sweep.kill(family)
    if left:
        names = ", ".join(f"{process.name()} (pid {process.pid})" for process in left)
        raise ShoalError(f"could not end {names} of {host.name}", fix="end them by hand, then: shoal lab down")
    if host.kind == "loopback":
        sweep.kill(sweep.belonging("of no run", [Path(host.folder)]))
        sweep.remove_shared_memory(lab.record.run.created)
    return saved(lab, lab.record.with_host(host.model_copy(update={"boot": None})))


def reboot(lab: Lab, host: HostRecord) -> Lab:
    """Off, and on again."""
    lab = power_off(lab, host)
    return boot(lab, lab.host(host.name))


def status(lab: Lab) -> ClusterStatus:
    """The cluster in the lab as it is now."""
    return snapshot(lab.record.run)


def run(lab: Lab, name: str, command: Sequence[str], on_line: Callable[[str], None]) -> int:
    """Run a command on a host, its output line by line; the command's exit code."""
    host = lab.host(name)
    if host.kind == "loopback":
        argv = ("env", *(f"{key}={value}" for key, value in plan.own(host).items()), *command)
    else:
        argv = (*namespace.enter_argv(namespace.inner(host, lab.record.run.boot_id)), *command)
    result = LocalHost().stream(argv, timeout=RUN_SECONDS, on_line=on_line)
    if result.err:
        on_line(result.err.rstrip("\n"))
    return result.code


def wait_ready(lab: Lab, seconds: float, show: Callable[[ClusterStatus], None] = lambda _: None) -> ClusterStatus:
    """Wait until a token can be produced.

    Raises:
        StartFailed: it did not come to that in time; the lab is left as it is.
    """
    end = time.monotonic() + seconds
    while True:
        now = status(lab)
        show(now)
        if now.state is ClusterState.READY:
            return now
        if time.monotonic() > end:
            words = [f"{node.name} {node.state.value} {node.detail}" for node in now.nodes]
            why = "; ".join([*words, now.engine.detail if now.engine else "no engine"])
            raise StartFailed(f"the lab was not ready within {seconds:g} s", why=why, fix=f"ls {lab.folder}/logs")
        time.sleep(0.2)


def wait_while(lab: Lab, state: ClusterState, seconds: float) -> ClusterStatus:
    """Wait until the cluster is in another state than this.

    Raises:
        ShoalError: it stayed in it.
    """
    end = time.monotonic() + seconds
    while (now := status(lab)).state is state:
        if time.monotonic() > end:
            raise ShoalError(f"the lab was {state.value} for {seconds:g} s", fix="shoal lab status")
        time.sleep(0.2)
    return now


def down(env: Mapping[str, str]) -> list[str]:
    """Take the lab down and leave nothing but its logs; what was removed, in words."""
    folder = lab_dir(env)
    found = record.load(folder)
    if found is None:
        return []
    lab = Lab(folder, found)
    for host in found.hosts:
        lab = power_off(lab, host)
    left = sweep.kill(sweep.belonging(found.run.run_id, [Path(found.run.temp_dir), folder / "logs"]))
    if left:
        names = ", ".join(f"{process.name()} (pid {process.pid})" for process in left)
        raise ShoalError(f"could not end {names}", fix="end them by hand, then: shoal lab down")
    _keep_logs(lab)
    if found.kind == "namespace":
        _remove_network(lab)
    elif found.run.boot_id == read_boot_id(LocalHost()):
        sweep.remove_shared_memory(found.run.created)
    shutil.rmtree(found.run.temp_dir, ignore_errors=True)
    for name in ("ray.token", "engine.json"):
        (folder / name).unlink(missing_ok=True)
    record.remove(folder)
    return [f"took down {len(found.hosts)} hosts"]


def _keep_logs(lab: Lab) -> None:
    """The logs on the hosts' disks, beside those that outlive them."""
    for host in lab.record.hosts:
        for log in (host.disk / "state" / "logs").glob("*.log"):
            shutil.copyfile(log, lab.folder / "logs" / f"{host.name}.{log.name}")


def _remove_network(lab: Lab) -> None:
    namespace.attempt(lab.net.unplug())
    for host in lab.record.hosts:
        namespace.remove_disk(host)
        namespace.attempt(lab.net.remove(lab.net.namespace(host.name)))
    namespace.attempt(lab.net.remove(lab.net.switch))
    for place in lab.record.made:
        path = Path(place)
        if path.is_dir() and not any(path.iterdir()) and not namespace.is_mounted_on(path):
            path.rmdir()
