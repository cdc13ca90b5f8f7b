"""``shoal keep``: agents and supervisor of a local cluster that have ended are started again, as Docker would do it.

`shoal up --local` starts it once the cluster has answered, and `shoal down` ends it first. It knows what it may start
from a file in the state folder, whose settings hold no secret; its environment is that of the `up` which started it.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from shoal.host.local import LocalHost, spawn_daemon
from shoal.log import EventLog
from shoal.ops import sweep
from shoal.plan.node import ClusterPlan
from shoal.state import run as runs
from shoal.state.run import Proc, RunRecord

LOOK_EVERY = 1.0
WINDOW = 600.0
MOST = 5
KINDS = frozenset({"agent", "serve"})


def settings_file(folder: Path) -> Path:
    """Where the settings of each process lie."""
    return folder / "keep.json"


def remember(folder: Path, plan: ClusterPlan) -> None:
    """Write down what each process is started with."""
    settings = {node.name: node.env for node in plan.nodes} | {"engine": plan.engine.env}
    LocalHost().write(str(settings_file(folder)), json.dumps(settings, indent=1) + "\n", mode=0o600)


def spawn(record: RunRecord, name: str, kind: str, env: Mapping[str, str]) -> Proc:
    """Start one process of the run."""
    log = Path(record.log_dir) / f"{name}.log"
    clean = {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    pid = spawn_daemon([sys.executable, "-m", "shoal", kind], env=clean, cwd=Path(record.temp_dir), log=log)
    return sweep.record(name, kind, pid)


def delay(starts: tuple[float, ...], now: float) -> float | None:
    """Seconds since the last start after which the next one may follow; None where there were too many. Pure."""
    recent = [at for at in starts if now - at < WINDOW]
    return None if len(recent) >= MOST else 0.0 if not recent else 0.5 * 2.0 ** len(recent)


class Keeper:
    """Looks after the processes of one run."""

    def __init__(self, folder: Path, run_id: str, env: Mapping[str, str], log: EventLog) -> None:
        self._folder = folder
        self._run_id = run_id
        self._env = dict(env)
        self._log = log
        self._starts: dict[str, tuple[float, ...]] = {}
        self._gave_up: set[str] = set()

    def run(self) -> int:
        """Look until the run is over."""
        while (record := runs.load(self._folder)) is not None and record.run_id == self._run_id:
            for proc in record.procs:
                if proc.kind in KINDS and sweep.alive(proc, record.boot_id) is None:
                    record = self._again(record, proc)
            time.sleep(LOOK_EVERY)
        return 0

    def _again(self, record: RunRecord, proc: Proc) -> RunRecord:
        now, starts = time.monotonic(), self._starts.get(proc.name, ())
        wait = delay(starts, now)
        if wait is None:
            if proc.name not in self._gave_up:
                self._gave_up.add(proc.name)
                words = f"{proc.name} ended {len(starts)} times within {WINDOW / 60:g} minutes: it is left alone"
                self._log("gave_up", words, level="error")
            return record
        if starts and now - starts[-1] < wait:
            return record
        settings = json.loads(settings_file(self._folder).read_text(encoding="utf-8"))
        new = spawn(record, proc.name, proc.kind, {**self._env, **settings[proc.name]})
        others = tuple(one for one in record.procs if one != proc)
        record = record.model_copy(update={"procs": (*others, new)})
        runs.save(self._folder, record)
        self._starts[proc.name] = (*starts, now)
        self._log(
            "again", f"{proc.name} (its {proc.kind} process) had ended: started again as pid {new.pid}", level="warn"
        )
        return record


def main(env: Mapping[str, str]) -> int:
    """Run the keeper of the local cluster whose run is named in the environment."""
    folder, log = Path(env["SHOAL_STATE_DIR"]), EventLog(sys.stdout)
    given = {name: value for name, value in env.items() if name != "SHOAL_STATE_DIR"}
    return Keeper(folder, env["SHOAL_RUN_ID"], given, log).run()
