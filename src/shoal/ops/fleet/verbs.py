"""``shoal up`` and ``shoal rollback`` for a cluster on many hosts, from the first look to the first token."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from shoal.errors import NotRunning, ShoalError, StartFailed
from shoal.host.base import Host
from shoal.ops.bringup import Ready
from shoal.ops.fleet import apply, reach
from shoal.ops.fleet.desk import DONE, Desk, desk
from shoal.ops.fleet.down import take_down
from shoal.ops.fleet.follow import Watch, first_answer, until_ready
from shoal.ops.fleet.hosts import open_host
from shoal.ops.fleet.lock import Lock, locked
from shoal.ops.fleet.planning import Chair, every, look, open_file, prepare
from shoal.plan.fleet import API_KEY, PLAN, FleetPlan, root_of
from shoal.plan.fleet_changes import changes, former, leaving, not_at_boot, served_by, with_engine
from shoal.state.standing import Standing
from shoal.state.status import ClusterState, ClusterStatus


@dataclass(frozen=True)
class Speaker:
    """Who is told what happens: each stage in words, and the cluster's status while it comes up."""

    note: Callable[[str], None]
    show: Callable[[ClusterStatus], None]


@dataclass
class Course:
    """How far a verb has come."""

    verb: str
    file: Path
    own: Desk
    release: str
    tell: Callable[[str], None]
    lock: Lock
    stage: str = "looking at the hosts"

    def at(self, stage: str) -> None:
        """The next stage begins."""
        self.stage = stage
        self.own.note(self.verb, stage, self.release)
        self.tell(stage)
        self.lock.keep()

    def done(self) -> None:
        """It has come to its end."""
        self.own.note(self.verb, DONE, self.release)


@contextmanager
def told_where(course: Course) -> Iterator[None]:
    """Let every error, and Ctrl-C, say how far it came and what goes on from there."""
    again = f"shoal {course.verb} -f {course.file}"
    onward = f"{again}   # goes on from there\n     shoal rollback -f {course.file}   # back to the last that served"
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(course.stage, onward) from error
    except ShoalError as error:
        error.why = f"{error.why or 'see above'}\n     it came as far as: {course.stage}"
        error.fix = f"{error.fix}\n     {onward}" if error.fix else onward
        raise


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with where it stands and what goes on from there."""

    def __init__(self, stage: str, onward: str) -> None:
        super().__init__(stage)
        self.stage = stage
        self.onward = onward


def up(file: Path, env: Mapping[str, str], speaker: Speaker, patience: float) -> Ready | None:
    """Carry the file's plan out; None where all is as planned already, and answers.

    Raises:
        ShoalError: why not, how far it came, and what goes on from there.
    """
    speaker.note("looking at the hosts")
    chair = prepare(file, env)
    apply.check_images(chair.plan, chair.standings, file)
    chair.desk.make()
    head = chair.plan.head
    if settled(chair) and reach.status(chair.hosts[head.name], chair.plan).state is ClusterState.READY:
        chair.desk.note("up", DONE, chair.plan.digest)
        return None
    with locked(chair.hosts[head.name], head.root, "up") as lock:
        course = Course("up", file, chair.desk, chair.plan.digest, speaker.note, lock)
        # Between the first look and the lock, another operator may have been here.
        there = tuple(chair.hosts.values())
        standings = every(there, look(chair.spec, there))
        with told_where(course):
            moved = _carry(chair, standings, course)
            ready = _first_token(chair, moved, course, speaker, lock, patience)
        course.done()
        return ready


def settled(chair: Chair) -> bool:
    """Whether nothing is to be written anywhere: then no lock is needed, and nobody is in another's way."""
    plan, standings = chair.plan, chair.standings
    as_planned = changes(plan, standings).nothing and all(served_by(one, plan) for one in standings.values())
    return as_planned and chair.desk.complete and not apply.stale(plan, standings, chair.desk.value)


def _carry(chair: Chair, standings: Mapping[str, Standing], course: Course) -> bool:
    """Everything up to the last start; whether a program was started."""
    plan, value = chair.plan, chair.desk.value
    planned = changes(plan, standings)
    chair.desk.adopt(chair.hosts[plan.head.name], plan.head)
    chair.desk.keep(plan)
    if apply.new_key(plan, standings[plan.head.name], value):
        planned = with_engine(planned, plan, "its API key has changed")
    fleet = apply.Fleet(plan, chair.hosts, course.at)
    old = former(standings[plan.head.name])
    apply.push(fleet, planned.push, standings)
    apply.hand_over(fleet, apply.stale(plan, standings, value), value)
    for node in leaving(plan, old):
        course.at(f"taking {node.name} down: it is no longer in {chair.file}")
        take_down(old or plan, [node.name], {node.name: open_host(node.name, node.ssh)}, course.at)
    apply.switch(fleet, planned.switch)
    apply.carry(fleet, planned)
    apply.at_boot(fleet, changes(plan, chair.standings).boots)
    if planned.starts and (words := not_at_boot(plan, chair.standings)):
        course.tell(words)
    return bool(planned.starts)


def _first_token(
    chair: Chair, moved: bool, course: Course, speaker: Speaker, lock: Lock, patience: float
) -> Ready | None:  # fmt: skip
    plan = chair.plan
    if not moved and reach.status(chair.hosts[plan.head.name], plan).state is ClusterState.READY:
        _served(chair, course)
        return None
    course.at("waiting for the first token")
    watch = Watch(plan, chair.hosts, speaker.show, patience, lock)
    try:
        status = until_ready(watch)
        question, answer = first_answer(watch)
    except StartFailed as error:
        error.fix = f"shoal logs -f {chair.file}   # what each program said; they go on trying"
        raise
    _served(chair, course)
    record = reach.record(plan, 0, api_key_file=_key_file(chair))
    return Ready(record, status, question, answer, stop=f"shoal down -f {chair.file}")


def _key_file(chair: Chair) -> str:
    return str(chair.desk.folder / API_KEY) if chair.spec.serving.api_key == "generate" else chair.spec.serving.api_key


def _served(chair: Chair, course: Course) -> None:
    apply.remember(apply.Fleet(chair.plan, chair.hosts, course.tell))


# ---- back


def rollback(file: Path, env: Mapping[str, str], speaker: Speaker, patience: float) -> Ready | None:
    """Go back to the last release that served, other than the current one.

    Raises:
        NotRunning: there is none.
        ShoalError: why not, how far it came, and what goes on from there.
    """
    spec, hosts = open_file(file)
    there = tuple(hosts.values())
    speaker.note("looking at the hosts")
    standings = every(there, look(spec, there))
    head = next(host for host in spec.hosts if host.role == "head")
    plan = earlier(hosts[head.name], head.name, standings[head.name], spec.cluster, file)
    known = {node.name: open_host(node.name, node.ssh) for node in plan.nodes}
    own = desk(spec.cluster, env)
    own.make()
    chair = Chair(file, spec, known, standings, plan, own)
    mine = (hosts[head.name], root_of(standings[head.name].home, spec.cluster))
    with both_locked(mine, (known[plan.head.name], plan.head.root), "rollback") as lock:
        course = Course("rollback", file, own, plan.digest, speaker.note, lock)
        now = every(tuple(known.values()), look(spec, tuple(known.values())))
        _require_release(plan, now)
        with told_where(course):
            moved = _carry(chair, now, course)
            ready = _first_token(chair, moved, course, speaker, lock, patience)
        course.done()
        return ready


@contextmanager
def both_locked(mine: tuple[Host, str], theirs: tuple[Host, str], verb: str) -> Iterator[Lock]:
    """Hold the lock of two heads, each a host and its root: that of the file, and that of the release where it differs.

    Whoever has the file as it was locks the other head.
    """
    with ExitStack() as held:
        if mine[0].name != theirs[0].name:
            held.enter_context(locked(*mine, verb))
        yield held.enter_context(locked(*theirs, verb))


def earlier(head: Host, name: str, standing: Standing, cluster: str, file: Path) -> FleetPlan:
    """The plan of the release to go back to, as the head keeps it.

    Raises:
        NotRunning: no other release has served yet.
    """
    wanted = standing.before if standing.served == standing.current else standing.served
    if not wanted or wanted == standing.current:
        raise NotRunning(
            f"{cluster}: no other release has produced a token yet",
            why=f"on {name}: current {standing.current or '(none)'}, served {standing.served or '(none)'}",
            fix=f"correct {file}, then: shoal up -f {file}",
        )
    text = head.read(f"{root_of(standing.home, cluster)}/releases/{wanted}/{PLAN}") or ""
    try:
        return FleetPlan.model_validate_json(text)
    except ValidationError as error:
        raise NotRunning(
            f"{name}: release {wanted} cannot be read", why="its plan is missing or of another version of shoal",
            fix=f"shoal up -f {file}",
        ) from error  # fmt: skip


def _require_release(plan: FleetPlan, standings: Mapping[str, Standing]) -> None:
    if missing := [name for name, one in standings.items() if plan.digest not in one.releases]:
        raise NotRunning(
            f"release {plan.digest} is no longer on {', '.join(missing)}", fix="correct the file, and: shoal up"
        )
