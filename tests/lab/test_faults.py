"""Every fault against every role, idle and under a stream of requests: what becomes of it, never how fast.

All cases share one lab, as real faults share one cluster: each begins with one that is ready, and ends with one.
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from tests.subnets import free_subnet

from shoal.lab import cluster, faults, processes
from shoal.lab.cluster import Lab
from shoal.lab.load import Load
from shoal.lab.plan import Wish
from shoal.lab.soak import Witness
from shoal.ops.ask import api_key
from shoal.state.status import ClusterState

pytestmark = pytest.mark.lab

HEADS = ("gcs", "engine", "api", "supervisor")
BOTH = ("agent", "raylet", "rank")
# What must run when all is well, by host and role: each once.
WHOLE = {f"{role}@n{number}": 1 for number in (1, 2) for role in BOTH} | {f"{role}@n1": 1 for role in HEADS}


@dataclass(frozen=True)
class Case:
    """A fault, how long it lasts, and what the supervisor must say of it.

    Where it need not say anything the fault is one that passes: the engine must live through it, not be loaded anew.
    """

    fault: str
    target: str
    lasts: float = 0.0
    says: str = ""

    def __str__(self) -> str:
        return f"{self.fault}-{self.target}-{self.lasts:g}" if self.lasts else f"{self.fault}-{self.target}"


N1, N2 = r"n1|\.1\b", r"n2|\.2\b"
ENDED = r"vLLM ended|server has ended"
CASES = (
    Case("kill", "agent@n1", says=N1),
    Case("kill", "agent@n2", says=N2),
    Case("kill", "raylet@n1", says=N1),
    Case("kill", "raylet@n2", says=N2),
    Case("kill", "rank@n1", says=ENDED),
    Case("kill", "rank@n2", says=ENDED),
    Case("kill", "gcs", says=f"{N1}|{ENDED}"),
    Case("kill", "engine", says=ENDED),
    Case("kill", "api", says=ENDED),
    Case("kill", "supervisor", says="open: 2 node"),
    Case("stop", "agent@n1", 4.0),
    Case("stop", "agent@n2", 4.0),
    Case("stop", "raylet@n1", 4.0),
    Case("stop", "raylet@n2", 4.0),
    Case("stop", "rank@n1", 4.0),
    Case("stop", "rank@n2", 4.0),
    Case("stop", "gcs", 4.0),
    Case("stop", "engine", 4.0),
    Case("stop", "api", 4.0),
    Case("stop", "supervisor", 4.0),
    Case("link-down", "n2", 5.0),
    Case("link-down", "n1", 5.0),
    Case("link-down", "n2", 25.0, says=N2),
    Case("loss", "n2", 4.0),
    Case("disk-full", "n1", 4.0),
    Case("disk-full", "n2", 4.0),
    Case("clock-jump", "n1", 3.0),
    Case("clock-jump", "n2", 3.0),
    Case("reboot", "n2", says=N2),
    Case("head-reboot", "head", says="open: 2 node"),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the one lab of this module."""
    env = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path_factory.mktemp("lab") / "state")}
    wish = Wish(
        2,
        "namespace",
        "sim",
        subnet=free_subnet(116),
        clock=True,
        settings={"SHOAL_RESTART_WINDOW": "5", "SHOAL_LOST_AFTER": "12"},
    )
    try:
        cluster.wait_ready(cluster.up(wish, env, lambda _: None), 180)
        yield env
    finally:
        cluster.down(env)


@pytest.fixture
def lab(shared: dict[str, str]) -> Lab:
    """The lab, whole and ready; nothing of an earlier case lasts."""
    here = cluster.current(shared)
    for record in here.record.faults:
        here, _ = faults.undo(here, record)
    cluster.wait_ready(here, 180)
    return here


def census(lab: Lab) -> dict[str, int]:
    """How many processes play each role on each host, where any do."""
    boot_id = lab.record.run.boot_id
    found = {
        f"{role}@{host.name}": len(processes.find(host, boot_id, role))
        for host in lab.record.hosts
        for role in processes.ROLES
    }
    return {name: count for name, count in found.items() if count}


def whole(lab: Lab) -> dict[str, int]:
    """The census, once it is as it should be; what it is after a while otherwise. Old processes may still be ending."""
    end = time.monotonic() + 30
    while (found := census(lab)) != WHOLE and time.monotonic() < end:
        time.sleep(0.5)
    return found


async def happen(lab: Lab, case: Case, *, stream: bool) -> tuple[Load, Witness]:
    """Let the fault happen and pass, with or without a stream of requests; ends when tokens come again."""
    run, fault = lab.record.run, faults.FAULTS[case.fault]
    target = faults.read_target(lab, fault, case.target)
    async with Load(run.endpoint, api_key(run), run.model, per_second=5 if stream else 0.001) as load:
        witness = Witness(run.serve_url, load)
        # Idle means idle: then nobody asks for anything before the fault is over.
        watching = asyncio.create_task(witness.watch() if stream else asyncio.sleep(0))
        await asyncio.sleep(0.5)
        lab, _ = await asyncio.to_thread(faults.strike, lab, fault, target)
        await asyncio.sleep(case.lasts)
        if fault.lasts:
            lab, _ = await asyncio.to_thread(faults.undo, lab, faults.lasting(lab, fault, target))
        assert await witness.settled(180) is not None, f"after {case} no token came again"
        watching.cancel()
    return load, witness


# One for each kind of trouble runs in every `make test`; all of them in `make rehearse`.
ALWAYS = {
    "kill-agent@n2", "kill-raylet@n2", "kill-rank@n2", "kill-gcs", "kill-api", "stop-rank@n2-4", "link-down-n2-5",
    "disk-full-n1-4", "head-reboot-head",
}  # fmt: skip


def rows() -> Iterator[ParameterSet]:
    """Every case, idle and under a stream of requests."""
    for case in CASES:
        for stream in (False, True):
            often = stream and str(case) in ALWAYS
            marks = () if often else (pytest.mark.rehearsal,)
            yield pytest.param(case, stream, id=f"{case}-{'stream' if stream else 'idle'}", marks=marks)


@pytest.mark.parametrize(("case", "stream"), list(rows()))
def test_it_comes_back(lab: Lab, case: Case, stream: bool) -> None:
    """Everything runs again, once; no answer was wrong, none hung, ready was never a lie, and the cause was named."""
    server = processes.find(lab.host("head"), lab.record.run.boot_id, "api")
    log = Path(lab.folder, "logs", "engine.log")
    told = log.stat().st_size
    load, witness = asyncio.run(happen(lab, case, stream=stream))
    said = log.read_bytes()[told:].decode()
    assert (load.tally.wrong, load.tally.hung, witness.lies) == ([], 0, [])
    assert whole(cluster.current({"SHOAL_STATE_DIR": str(lab.folder.parent)})) == WHOLE
    assert re.search(case.says, said), said
    assert (processes.find(lab.host("head"), lab.record.run.boot_id, "api") == server) is not bool(case.says)
    assert cluster.status(lab).state is ClusterState.READY
