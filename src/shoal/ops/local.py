"""``shoal up --local`` and ``shoal down``: nodes of this machine as processes on loopback addresses."""

import fcntl
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from shoal.agent.preflight import address_is_local
from shoal.checks.base import Finding, Status
from shoal.checks.local import LocalFacts, check_local
from shoal.engine.keys import ensure_key
from shoal.engine.launch import Request
from shoal.engine.models import resolve
from shoal.errors import AlreadyRunning, PreconditionFailed, ShoalError, StartFailed
from shoal.facts.model_folder import ModelFolder, inspect
from shoal.facts.process import read_boot_id
from shoal.facts.system import listeners, read_memory
from shoal.facts.versions import versions
from shoal.facts.vllm_options import known_options
from shoal.host.local import LocalHost
from shoal.ops import keeper, sweep
from shoal.ops.snapshot import snapshot
from shoal.plan import executor as executors
from shoal.plan.local import LocalSpec, check_nodes, plan_local
from shoal.plan.node import ClusterPlan
from shoal.plan.parallel import on_cpu
from shoal.spec.environ import cache_dir, state_dir
from shoal.spec.registry import ModelEntry, check_options
from shoal.state import run as runs
from shoal.state.run import NodeRecord, Proc, RunRecord
from shoal.state.status import ClusterState, ClusterStatus, EngineState, ExecutorKind, NodeState

TEMP_ROOT = Path("/tmp")  # noqa: S108 (mkdtemp makes a private folder in it; TMPDIR may be too long for a socket path)
GRACE = {"keep": 5.0, "serve": 25.0, "agent": 25.0}


@dataclass(frozen=True)
class Wish:
    """What the user asked of ``shoal up --local``."""

    nodes: int
    model: ModelEntry
    api_port: int = 8000
    agent_port: int = 8700
    serve_port: int = 8701
    port_base: int = 27000
    join_timeout: float = 120.0
    executor: str = "auto"


def cluster_dir(env: Mapping[str, str]) -> Path:
    """The local cluster's state folder."""
    return state_dir(dict(env)) / "local"


def running(env: Mapping[str, str]) -> RunRecord | None:
    """The record of the local cluster, where it was brought up and not yet taken down."""
    return runs.load(cluster_dir(env))


@contextmanager
def bringing_up(folder: Path) -> Iterator[None]:
    """Hold the state folder for one bring-up.

    Raises:
        PreconditionFailed: no permission to write there.
        AlreadyRunning: another command is bringing a cluster up at this moment.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "logs").mkdir(exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fix = "make it writable, or choose another folder with SHOAL_STATE_DIR"
        raise PreconditionFailed(f"cannot write to the state folder {folder}", why=str(error), fix=fix) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AlreadyRunning(
            f"another command is bringing a cluster up in {folder}", fix="wait for it to end"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def refuse_second(env: Mapping[str, str]) -> None:
    """Refuse to start beside a cluster that lives; sweep away what is left of one that died.

    Raises:
        AlreadyRunning: a process of the recorded cluster still runs.
    """
    record = running(env)
    if record is None:
        return
    lives = [proc for proc in record.procs if sweep.alive(proc, record.boot_id)]
    if lives:
        names = ", ".join(f"{proc.name} (pid {proc.pid})" for proc in lives)
        raise AlreadyRunning(
            "a local cluster is up already", why=f"it runs {names}", fix="shoal status   or   shoal down"
        )
    down(env)


def prepare(wish: Wish, env: Mapping[str, str], report: Callable[[str], None]) -> tuple[ClusterPlan, LocalSpec]:
    """Everything that can be decided and made before a process is started.

    Raises:
        PreconditionFailed: the machine is not fit; every reason is named, with its fix.
    """
    check_nodes(wish.nodes)
    folder, cache = cluster_dir(env), cache_dir(dict(env))
    executor = _executor(wish)
    ensure_key(folder / "api.key")
    model_path = str(resolve(wish.model, cache, LocalHost(), report, sys.executable))
    model = inspect(Path(model_path)) if Path(model_path).is_dir() else None
    if wish.model.origin != "built-in" and wish.model.options:
        report("reading the options that the installed vLLM knows")
        check_options(wish.model, known_options(LocalHost(), sys.executable, cache))
    if executor is ExecutorKind.MP and wish.nodes > 1:
        report("asking the installed vLLM whether it can do without Ray")
        executors.check_options(known_options(LocalHost(), sys.executable, cache), versions().vllm)
    layers = model.num_hidden_layers if model is not None else None
    spec = LocalSpec(
        nodes=wish.nodes,
        model=wish.model,
        model_path=model_path,
        parallel=on_cpu(wish.nodes, layers),
        run_id=secrets.token_hex(8),
        temp_dir=TEMP_ROOT / "shoal-planned",
        state_dir=folder,
        cache_dir=cache,
        cores=len(os.sched_getaffinity(0)),
        api_port=wish.api_port,
        agent_port=wish.agent_port,
        serve_port=wish.serve_port,
        port_base=wish.port_base,
        join_timeout=wish.join_timeout,
        executor=executor,
    )
    plan = plan_local(spec)
    refuse_unfit(judge_machine(plan, model))
    return plan, spec


def _executor(wish: Wish) -> ExecutorKind:
    try:
        return executors.choose(wish.executor, versions())
    except PreconditionFailed as error:
        # What mends it for an image is no command on a checkout.
        what = f"{'vLLM and Ray are' if versions().vllm is None else 'Ray is'} not installed in this Python"
        raise PreconditionFailed(what, why=sys.executable, fix="make engine") from error


def judge_machine(plan: ClusterPlan, model: ModelFolder | None) -> tuple[Finding, ...]:
    """Findings about this machine for that plan."""
    facts = LocalFacts(
        plan=plan,
        versions=versions(),
        memory=read_memory(LocalHost()),
        listeners=listeners(),
        loopback_missing=tuple(node.address for node in plan.nodes if not address_is_local(node.address)),
        model=model,
    )
    return check_local(facts)


def refuse_unfit(findings: tuple[Finding, ...]) -> None:
    """Raise PreconditionFailed where a finding is FAIL, with all of them."""
    bad = [finding for finding in findings if finding.status is Status.FAIL]
    if bad:
        raise PreconditionFailed(
            "not started: " + "; ".join(finding.evidence for finding in bad),
            why="needed: " + "; ".join(f"{finding.title} ({finding.id})" for finding in bad),
            fix="\n     ".join(finding.fix for finding in bad),
        )


def start(spec: LocalSpec, env: Mapping[str, str]) -> RunRecord:
    """Start every process of the plan. What was started is on record before the next one is."""
    folder = spec.state_dir
    spec = replace(spec, temp_dir=Path(tempfile.mkdtemp(prefix="shoal-", dir=TEMP_ROOT)))
    (spec.temp_dir / "tmp").mkdir()
    plan = plan_local(spec)
    record = run_record(plan, spec)
    runs.save(folder, record)
    _rotate_logs(Path(record.log_dir))
    LocalHost().write(str(folder / "ray.token"), secrets.token_hex(32), mode=0o600)
    engine = plan.engine
    request = Request(engine.model, engine.endpoint, engine.arguments, engine.engine_env, executor=plan.executor)
    LocalHost().write(str(folder / "engine.json"), request.to_json(), mode=0o600)
    keeper.remember(folder, plan)
    for node in plan.nodes:
        record = _spawn(record, folder, node.name, "agent", {**env, **node.env})
    return _spawn(record, folder, "engine", "serve", {**env, **plan.engine.env})


def keep(folder: Path, record: RunRecord, env: Mapping[str, str]) -> RunRecord:
    """From now on, start agents and supervisor again where they end. Not earlier: a start that fails tells why."""
    own = {"SHOAL_STATE_DIR": str(folder), "SHOAL_RUN_ID": record.run_id}
    return _spawn(record, folder, "keeper", "keep", {**env, **own})


def run_record(plan: ClusterPlan, spec: LocalSpec) -> RunRecord:
    """The record of that plan before anything is started."""
    nodes = tuple(
        NodeRecord(name=node.name, role=node.role, address=node.address, gpus=node.gpus, agent_url=node.agent_url)
        for node in plan.nodes
    )
    return RunRecord(
        run_id=spec.run_id,
        boot_id=read_boot_id(LocalHost()),
        cluster=plan.name,
        created=time.time(),
        model=plan.engine.model,
        endpoint=plan.engine.endpoint,
        serve_url=f"http://{plan.head.address}:{plan.engine.serve_port}",
        temp_dir=str(spec.temp_dir),
        log_dir=str(spec.state_dir / "logs"),
        api_key_file=str(spec.state_dir / "api.key"),
        ray_address=f"{plan.head.address}:{plan.head.ports.gcs}" if plan.executor is ExecutorKind.RAY else "",
        nodes=nodes,
    )


def _rotate_logs(folder: Path) -> None:
    """Keep one earlier log of each process: it tells why the last cluster went down."""
    for log in folder.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))


def _spawn(record: RunRecord, folder: Path, name: str, kind: str, env: Mapping[str, str]) -> RunRecord:
    record = record.adding(keeper.spawn(record, name, kind, env))
    runs.save(folder, record)
    return record


def follow(env: Mapping[str, str], show: Callable[[ClusterStatus], None], patience: float) -> ClusterStatus:
    """Show the cluster's status until it is ready. The gate waits for ever; who looks on does so for ``patience`` s.

    Raises:
        StartFailed: it will not become ready, with the reason; it has been left as it is.
    """
    began = time.monotonic()
    while True:
        record = running(env)
        if record is None:
            raise StartFailed("the cluster was taken down while it came up", fix="shoal up --local")
        status = snapshot(record)
        show(status)
        if status.state is ClusterState.READY or status.serves_over_tcp:
            return status
        waited = time.monotonic() - began
        if reason := _hopeless(record, status) or (_shut(status, waited) if waited > patience else ""):
            raise StartFailed("the cluster did not come up", why=reason, fix="shoal logs   # what each process said")
        time.sleep(0.2)


def _shut(status: ClusterStatus, waited: float) -> str:
    if status.engine is None or status.engine.state is not EngineState.WAITING:
        return ""
    return f"the gate stayed shut for {waited:.0f} s: {status.engine.detail}"


def _hopeless(record: RunRecord, status: ClusterStatus) -> str:
    dead = [proc for proc in record.procs if sweep.alive(proc, record.boot_id) is None]
    if dead:
        last = (LocalHost().read(f"{record.log_dir}/{dead[0].name}.log") or "").strip().splitlines()[-1:]
        return f"{dead[0].name} (its {dead[0].kind} process) ended: {' '.join(last) or 'it said nothing'}"
    # In a cluster that is just coming up on one machine, a second try fails as the first did.
    tried = [f"{node.name}: {node.detail}" for node in status.nodes if node.restarts]
    if tried:
        return "; ".join(tried)
    if status.engine is not None and status.engine.last_fault:
        return status.engine.last_fault
    if status.engine is not None and status.state is ClusterState.FAILED:
        failed = [f"{node.name}: {node.detail}" for node in status.nodes if node.state.value == "failed"]
        return "; ".join(failed) or status.engine.detail
    return ""


def glance(record: RunRecord) -> tuple[ClusterState, str]:
    """The state of the cluster now, and a sentence about it."""
    status = snapshot(record)
    details = [node.detail for node in status.nodes if node.state is not NodeState.UP]
    return status.state, "; ".join(details) or (status.engine.detail if status.engine else "")


def down(env: Mapping[str, str]) -> list[str]:
    """Take the local cluster down and leave nothing: processes, ports, temp folder, shared memory.

    Returns:
        What was ended or removed, in words; empty where nothing was up.

    Raises:
        ShoalError: a process of ours could not be ended.
    """
    folder = cluster_dir(env)
    record = runs.load(folder)
    if record is None:
        return []
    done = _end_kind(record, "keep")
    record = runs.load(folder) or record  # the keeper may have started one again a moment ago
    done += [word for kind in ("serve", "agent") for word in _end_kind(record, kind)]
    places = [Path(record.temp_dir), Path(record.log_dir)]
    rest = sweep.belonging(record.run_id, places)
    left = sweep.end(rest, grace=3.0)
    if left:
        names = ", ".join(f"{process.name()} (pid {process.pid})" for process in left)
        raise ShoalError(f"could not end {names}", fix="end them by hand, then: shoal down")
    if rest:
        done.append(f"ended {len(rest)} process(es) that were left over")
    # A reboot empties /dev/shm: whatever is there now was made by somebody after it.
    rebooted = record.boot_id != read_boot_id(LocalHost())
    segments = [] if rebooted else sweep.remove_shared_memory(record.created)
    if segments:
        done.append(f"removed {len(segments)} shared memory segment(s)")
    shutil.rmtree(record.temp_dir, ignore_errors=True)
    shutil.rmtree(folder / "nccl", ignore_errors=True)
    (folder / "ray.token").unlink(missing_ok=True)
    (folder / "engine.json").unlink(missing_ok=True)
    keeper.settings_file(folder).unlink(missing_ok=True)
    runs.remove(folder)
    return done or ["removed what a cluster left that is gone"]


def _end_kind(record: RunRecord, kind: str) -> list[str]:
    """End the recorded processes of one kind: the supervisor, then workers, then the head they belong to."""
    procs = [proc for proc in record.procs if proc.kind == kind]
    done = []
    for group in ([proc for proc in procs if proc.name != "head"], [proc for proc in procs if proc.name == "head"]):
        living = [process for proc in group if (process := sweep.alive(proc, record.boot_id))]
        for process in living:
            _terminate(process)
        _wait_ended(group, record.boot_id, GRACE[kind])
        done += [f"stopped {proc.name}" for proc in group if proc.pid in {process.pid for process in living}]
    return done


def _wait_ended(procs: list[Proc], boot_id: str, seconds: float) -> None:
    """Wait until all have ended. A process whose parent has not asked for its exit code yet has ended, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(sweep.alive(proc, boot_id) for proc in procs):
        time.sleep(0.1)


def _terminate(process: psutil.Process) -> None:
    try:
        process.terminate()
        # A stopped process gets no signal but this one.
        process.resume()
    except psutil.NoSuchProcess:
        return
