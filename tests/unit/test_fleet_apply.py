"""A plan carried out on hosts that are folders of this machine: pushed, switched, started, stopped, remembered."""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.fleet_hosts import COMPOSE, PROCESS, facts, plan, seen, standing, stands

from shoal.errors import AlreadyRunning, ConfigError, HostError, NotRunning, PreconditionFailed, ShoalError, StartFailed
from shoal.host import hand, handed
from shoal.host.base import Host, Result
from shoal.host.fake import FakeHost
from shoal.host.send import carry_out
from shoal.ops import boot, relay
from shoal.ops.fleet import apply, down, reach, verbs
from shoal.ops.fleet import lock as lock_module
from shoal.ops.fleet.desk import Desk
from shoal.ops.fleet.lock import Lock, locked
from shoal.ops.fleet.planning import Chair
from shoal.plan.fleet import FleetPlan, PlannedFile, PlannedSecret
from shoal.plan.fleet_changes import changes
from shoal.spec.cluster import parse
from shoal.state.standing import Standing
from shoal.state.status import ClusterState, ClusterStatus

FILE = Path("shoal.yaml")
TEXT = PlannedFile(path="models.yaml", mode=0o644, text="a: {model: b}\n", why="the registry")


class Home(FakeHost):
    """A host that does in this process what is sent to its Python."""

    def run(self, argv: object, *, timeout: float, ok: object = (0,), input: object = None) -> Result:
        del timeout, ok
        line = str(input).splitlines()[-1].removeprefix("answer(").removesuffix(")")
        told = hand.work(json.loads(json.loads(line)))
        return Result(("python3", "-"), 0, hand.MARK + json.dumps(told), "")


class Place:
    """A cluster of two hosts, each a home of its own on this machine, whose programs sleep."""

    def __init__(self, folder: Path) -> None:
        self.homes = {name: folder / name for name in ("gpu-1", "gpu-2")}
        for home in self.homes.values():
            home.mkdir()
        self.hosts: Mapping[str, Host] = {name: Home(name=name) for name in self.homes}
        self.said: list[str] = []
        self.plan = self.of(plan(head=(TEXT,), worker=()))

    def of(self, made: FleetPlan) -> FleetPlan:
        """The plan, for these homes, with programs that only sleep."""
        text = made.model_dump_json()
        for node in made.nodes:
            text = text.replace(node.temp, f"{self.homes[node.name]}/tmp")
        document = json.loads(text)
        for node in document["nodes"]:
            home = str(self.homes[node["name"]])
            node.update(json.loads(json.dumps(node).replace("/home/me", home)))
            for unit in node["units"]:
                unit["start"] = ["sleep", "60"]
        return FleetPlan.model_validate(document)

    @property
    def fleet(self) -> apply.Fleet:
        return apply.Fleet(self.plan, self.hosts, self.said.append)

    def root(self, name: str) -> Path:
        return self.homes[name] / ".local/share/shoal/lab"

    def standings(self) -> dict[str, Standing]:
        step = {"do": "look", "runtime": "process", "python": ""}
        return {
            name: Standing.model_validate(carry_out(host, str(self.root(name)), [step])[0])
            for name, host in self.hosts.items()
        }

    def pushed(self) -> None:
        apply.push(self.fleet, list(self.hosts), self.standings())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(handed, "SHM", str(tmp_path / "shm"))  # this machine's is somebody else's
    monkeypatch.setattr(handed, "crontab", lambda: ([], "it has no cron"))  # and so is its crontab
    made = Place(tmp_path)
    yield made
    apply.end(made.fleet, [(node.name, unit.name) for node in made.plan.nodes for unit in node.units
                           if made.root(node.name).is_dir()])  # fmt: skip


def value(secret: PlannedSecret) -> str:
    """What each secret is here."""
    return f"value of {secret.path}\n"


def test_from_nothing_to_running_and_back(place: Place) -> None:
    """Pushed, handed over, switched, started; then nothing is left to change; then all of it is gone again."""
    before = place.standings()
    planned = changes(place.plan, before)
    place.pushed()
    apply.hand_over(place.fleet, apply.stale(place.plan, before, value), value)
    apply.switch(place.fleet, planned.switch)
    apply.carry(place.fleet, planned)
    apply.remember(place.fleet)
    now = place.standings()
    assert changes(place.plan, now).nothing
    assert apply.stale(place.plan, now, value) == []
    assert [apply.new_key(place.plan, one["gpu-1"], value) for one in (before, now)] == [False, False]
    assert apply.new_key(place.plan, now["gpu-1"], lambda secret: "another\n")
    stand = {name: (one.current, one.served) for name, one in now.items()}
    assert stand == dict.fromkeys(place.hosts, (place.plan.digest, place.plan.digest))
    assert (place.root("gpu-1") / "state/api.key").read_text() == "value of state/api.key\n"
    assert not (place.root("gpu-2") / "state/api.key").exists()
    assert (place.root("gpu-1") / "current/models.yaml").read_text() == TEXT.text
    done = down.take_down(place.plan, list(place.hosts), place.hosts, place.said.append)
    assert done == ["stopped engine of gpu-1", "stopped agent of gpu-2", "stopped agent of gpu-1"]
    assert place.said[1:] == [
        "handing over the secrets",
        "switching 2 host(s)",
        "starting agent on gpu-1, gpu-2",
        "starting engine on gpu-1",
        "stopping engine of gpu-1",
        "stopping agent of gpu-2",
        "stopping agent of gpu-1",
    ]


def test_what_a_failed_push_left_is_purged_too(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full: there is no release, but the cluster's folder is there; and a second time nothing is."""
    place.pushed()
    for name in place.hosts:
        (release,) = (place.root(name) / "releases").iterdir()
        shutil.rmtree(release)
    monkeypatch.setattr(down, "open_file", lambda _: (parse(PROCESS, "shoal.yaml"), place.hosts))

    def look(*_: object, **__: object) -> list[Standing]:
        return [one.model_copy(update={"home": str(place.homes[name])}) for name, one in place.standings().items()]

    monkeypatch.setattr(down, "look", look)
    env = {"SHOAL_STATE_DIR": str(tmp_path / "mine")}
    told = [f"removed {place.root(name)} on {name}" for name in place.hosts]
    assert [down.down(FILE, env, place.said.append, purge=yes) for yes in (False, True, True)] == [[], told, []]
    assert [list(home.iterdir()) for home in place.homes.values()] == [[], []]


def test_what_another_version_started_is_not_taken_for_nothing() -> None:
    """Where programs run and the plan of their release cannot be read, `down` says so and stops nothing."""
    spec = parse(PROCESS, "shoal.yaml")
    running = {name: one.model_copy(update={"plan": '{"new": 1}'}) for name, one in stands(plan()).items()}
    hosts = {name: Home(name=name) for name in running}
    reached = down.Reached(spec, hosts, running)
    with pytest.raises(ShoalError, match="what runs on gpu-1, gpu-2 was started by another version of shoal"):
        down.refuse_unread(reached, None)


def test_what_ran_before_a_boot_is_started_again(place: Place) -> None:
    """By the release's own program: what is written down and does not run; what was stopped stays so."""
    place.pushed()
    apply.switch(place.fleet, ["gpu-1", "gpu-2"])
    apply.begin(place.fleet, changes(place.plan, place.standings()).starts)
    root = place.root("gpu-1")
    assert boot.main(f"{root}/current/shoal.pyz") == 0
    apply.end(place.fleet, [("gpu-1", "engine")])
    unit = json.loads((root / "state/agent.unit").read_text())
    handed.end([unit["pid"]], 5.0)
    (root / "state/agent.unit").write_text(json.dumps({**unit, "boot": "the one before", "login": {"LANG": "xx"}}))
    assert unit["login"]["PATH"] == os.environ["PATH"]
    assert boot.main(f"{root}/current/shoal.pyz") == 0
    now = place.standings()["gpu-1"].units
    assert {name: (one.runs, one.digest) for name, one in now.items()} == {
        "agent": (True, unit["digest"]),
        "engine": (False, ""),
    }
    assert b"\0LANG=xx\0" in Path(f"/proc/{now['agent'].pid}/environ").read_bytes()  # as at the start by ssh


def test_what_cannot_be_started_at_a_boot_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, for the mail that cron sends; the code says so too."""
    place.pushed()
    apply.switch(place.fleet, ["gpu-1", "gpu-2"])
    root = place.root("gpu-1")
    (root / "state/agent.unit").write_text('{"pid": 1, "digest": "x"}')
    (root / "logs").rmdir()
    assert boot.main(f"{root}/current/shoal.pyz") == 1
    assert capsys.readouterr().err == f"shoal boot: agent: No such file or directory: {root}/logs/agent.log\n"
    assert boot.main("/nowhere/bin/shoal") == 1
    assert capsys.readouterr().err.startswith("error: /nowhere is no cluster's folder")


def test_a_release_holds_its_plan(place: Place) -> None:
    """It is the way back, for any operator."""
    place.pushed()
    text = (place.root("gpu-2") / "releases" / place.plan.digest / "plan.json").read_text()
    assert FleetPlan.model_validate_json(text) == place.plan


def test_no_host_is_left_switched_alone(place: Place) -> None:
    """Where one host refuses, those that were switched are switched back, and the error names it."""
    place.pushed()
    (place.root("gpu-2") / "releases" / place.plan.digest).rename(place.homes["gpu-2"] / "moved")
    with pytest.raises(HostError, match="gpu-2: switch could not be done"):
        apply.switch(place.fleet, ["gpu-1", "gpu-2"])
    assert {name: one.current for name, one in place.standings().items()} == {"gpu-1": "", "gpu-2": ""}


def test_where_all_is_as_planned_nothing_is_written(tmp_path: Path) -> None:
    """Only where every host has served this release, and nothing is to push, switch, start, hand over or clear away."""
    made, own = plan(), desk(tmp_path)
    digests = {name: apply.sha(f"{name}\n") for name in ("api.key", "ray.token")}

    def is_settled(**changed: object) -> bool:
        found = stands(made, gpu_1={"secrets": digests}, gpu_2={"secrets": digests, **changed})
        return verbs.settled(Chair(FILE, parse(PROCESS, "shoal.yaml"), {}, found, made, own))

    assert not is_settled()  # this operator does not have the secrets yet
    for name in digests:
        (own.folder / name).write_text(f"{name}\n")
    assert is_settled()
    assert is_settled(releases=(made.digest, "old"), before="old")
    for changed in (
        {"current": "old"}, {"releases": ()}, {"units": {}}, {"secrets": {}}, {"served": "old"},
        {"releases": (made.digest, "old")},
    ):  # fmt: skip
        assert not is_settled(**changed)


def test_two_hosts_that_fail_are_one_error(place: Place) -> None:
    """Each is named with its own reason."""
    with pytest.raises(HostError) as raised:
        apply.switch(place.fleet, ["gpu-1", "gpu-2"])
    assert raised.value.what == "2 of 2 hosts: gpu-1, gpu-2"
    assert raised.value.why.count(f"there is no release {place.plan.digest}") == 2


def test_an_interruption_waits_for_the_switch() -> None:
    """Ctrl-C in the middle of what must not be left half done comes after it."""
    done = []

    def work() -> None:
        with apply.undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]


def test_images_are_compared() -> None:
    """One that is missing, and one that is another under the same name: the hosts are named, with a remedy."""
    made = plan(COMPOSE)
    fit = stands(made)
    apply.check_images(made, fit, FILE)
    docker = standing().docker
    gone = {**fit, "gpu-2": standing(docker=docker.model_copy(update={"image": ""}))}
    with pytest.raises(PreconditionFailed) as raised:
        apply.check_images(made, gone, FILE)
    assert (raised.value.what, raised.value.fix) == (
        "vllm:1 is not on gpu-2",
        "shoal push-image -f shoal.yaml   # once, and from there from host to host",
    )
    other = {**fit, "gpu-2": standing(docker=docker.model_copy(update={"image": "sha256:bb [other]"}))}
    with pytest.raises(PreconditionFailed, match="vllm:1 is not the same image everywhere"):
        apply.check_images(made, other, FILE)


def test_the_lock_names_its_owner(place: Place) -> None:
    """While one operator works, another is told who it is; afterwards the lock is free."""
    host, root = place.hosts["gpu-1"], str(place.root("gpu-1"))
    with locked(host, root, "up") as lock:
        lock.take()
        with (
            pytest.raises(AlreadyRunning, match=r".+@.+ changes this cluster just now: shoal up"),
            locked(host, root, "down"),
        ):
            raise AssertionError("two have it")  # pragma: no cover
    with locked(host, root, "down"):
        pass


def test_the_lock_is_kept_from_stage_to_stage(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages together last longer than the lock: each asks for it again, and ends where another has it by now."""
    host, root, now = place.hosts["gpu-1"], str(place.root("gpu-1")), [1000.0]
    monkeypatch.setattr(lock_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(hand, "time", SimpleNamespace(time=lambda: now[0]))
    with locked(host, root, "up") as lock:
        course = verbs.Course("up", FILE, desk(tmp_path), "abc", place.said.append, lock)
        for stage in ("pushing", "stopping", "starting"):
            now[0] += 100
            course.at(stage)
        with pytest.raises(AlreadyRunning):
            Lock(host, root, "down").take()
        now[0] += 1000
        Lock(host, root, "down").take()
        with pytest.raises(AlreadyRunning, match="changes this cluster just now: shoal down"):
            course.at("waiting")


def test_the_lock_is_kept_while_a_stage_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stage may last longer than the lock: it is taken again meanwhile, and no more once it is given back."""
    host, root, now, looks = place.hosts["gpu-1"], str(place.root("gpu-1")), [1000.0], []
    monkeypatch.setattr(lock_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(hand, "time", SimpleNamespace(time=lambda: now[0]))
    lock = Lock(host, root, "up")
    lock.take()

    def wait(seconds: float) -> bool:
        now[0] += seconds
        looks.append(now[0])
        if len(looks) == 8:
            lock.give_back()
        return len(looks) > 8

    monkeypatch.setattr(lock._ended, "wait", wait)
    other = Lock(host, root, "down")
    ask = lock._ask

    def watched(seconds: float) -> dict[str, str]:
        if seconds:
            with pytest.raises(AlreadyRunning, match="shoal up"):
                other.take()
        return ask(seconds)

    monkeypatch.setattr(lock, "_ask", watched)
    lock.along()
    assert (now[0], len(looks)) == (1000.0 + 9 * lock_module.ALONG, 9)
    other.take()


def test_a_way_back_to_another_head_locks_both(place: Place) -> None:
    """Who has the file as it is, and who has it as it was: neither can work meanwhile. The same head is locked once."""
    heads = [(host, str(place.root(name))) for name, host in place.hosts.items()]
    with verbs.both_locked(heads[0], heads[1], "rollback"):
        for host, root in heads:
            with pytest.raises(AlreadyRunning, match="shoal rollback"):
                Lock(host, root, "up").take()
    with verbs.both_locked(heads[0], heads[0], "rollback"):
        Lock(*heads[1], "up").take()
    Lock(*heads[0], "up").take()


def test_a_host_that_has_left_the_file_is_taken_down_too(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's record names it, and nobody else does: what runs there is stopped, and with the rest all goes."""
    planned = changes(place.plan, place.standings())
    place.pushed()
    apply.switch(place.fleet, planned.switch)
    apply.carry(place.fleet, planned)
    alone = parse(PROCESS.replace("  - {name: gpu-2, fabric: 10.0.0.2, gpus: 1}\n", ""), "shoal.yaml")
    monkeypatch.setattr(down, "open_file", lambda _: (alone, {"gpu-1": place.hosts["gpu-1"]}))
    monkeypatch.setattr(down, "open_host", lambda name, _: place.hosts[name])

    def look(_: object, hosts: Sequence[Host]) -> list[Standing]:
        found = place.standings()
        return [found[host.name].model_copy(update={"home": str(place.homes[host.name])}) for host in hosts]

    monkeypatch.setattr(down, "look", look)
    done = down.down(FILE, {"SHOAL_STATE_DIR": str(tmp_path / "mine")}, place.said.append, purge=True)
    assert {"stopped agent of gpu-1", "stopped agent of gpu-2", f"removed {place.root('gpu-2')} on gpu-2"} <= set(done)
    assert [list(home.iterdir()) for home in place.homes.values()] == [[], []]


def test_the_same_machine_by_another_name_has_not_left() -> None:
    """A host that is called otherwise now is reached by its new name alone."""
    renamed = parse(PROCESS.replace("{name: gpu-2,", "{name: other, ssh: gpu-2,"), "shoal.yaml")
    standings = stands(plan())
    assert down.no_longer_named(renamed, {"gpu-1": standings["gpu-1"], "other": standings["gpu-2"]}) == {}


def desk(folder: Path, **env: str) -> Desk:
    found = Desk(folder / "desk", env)
    found.make()
    return found


def test_secrets_are_made_once_and_taken_over(tmp_path: Path) -> None:
    """A first operator makes them; those that the head has win; each operator keeps them in files of mode 0600."""
    node = plan().head
    mine = desk(tmp_path)
    mine.adopt(FakeHost(), node)
    token = (mine.folder / "ray.token").read_text()
    mine.adopt(FakeHost(), node)
    assert (mine.folder / "ray.token").read_text() == token
    mine.adopt(FakeHost({f"{node.root}/state/ray.token": "other\n"}), node)
    assert (mine.folder / "ray.token").read_text() == "other\n"
    yours = Desk(tmp_path / "yours", {})
    yours.make()
    yours.adopt(FakeHost({f"{node.root}/state/ray.token": token}), node)
    assert (yours.folder / "ray.token").read_text() == token
    assert {oct(path.stat().st_mode)[-3:] for path in yours.folder.iterdir()} == {"600"}
    yours.remove()
    assert not yours.folder.exists()


def test_what_a_reference_stands_for(tmp_path: Path) -> None:
    """A variable, a file, or what was made; nothing in it is a mistake that is named."""
    own = desk(tmp_path, KEY="hush")
    own.adopt(FakeHost(), plan().head)
    (tmp_path / "key").write_text("quiet\n")

    def stands_for(source: str) -> str:
        return own.value(PlannedSecret(path="state/api.key", source=source, why=""))

    made = (own.folder / "api.key").read_text()
    told = [stands_for(source) for source in ("env:KEY", f"file:{tmp_path}/key", "generated:api.key")]
    assert told == ["hush\n", "quiet\n", made]
    with pytest.raises(ConfigError, match="env:NONE holds no secret"):
        stands_for("env:NONE")


def test_how_far_a_command_came(tmp_path: Path) -> None:
    """An error and Ctrl-C say the last stage and the next command; what came to its end has nothing to tell."""
    own = desk(tmp_path)
    said: list[str] = []
    course = verbs.Course("up", Path("shoal.yaml"), own, "abc", said.append, Lock(FakeHost(), "/r", "up"))

    def go(stage: str, error: BaseException) -> None:
        with verbs.told_where(course):
            course.at(stage)
            raise error

    with pytest.raises(StartFailed) as raised:
        go("pushing", StartFailed("no", why="because", fix="do this"))
    assert raised.value.why == "because\n     it came as far as: pushing"
    assert raised.value.fix.splitlines() == [
        "do this",
        "     shoal up -f shoal.yaml   # goes on from there",
        "     shoal rollback -f shoal.yaml   # back to the last that served",
    ]
    with pytest.raises(verbs.Interrupted) as stopped:
        go("switching", KeyboardInterrupt())
    assert (stopped.value.stage, said, own.where()["stage"]) == ("switching", ["pushing", "switching"], "switching")
    course.done()
    assert own.where() == {}


def test_which_release_is_gone_back_to() -> None:
    """The last that served, or where that is the current one the one before it; else there is none, and it is said."""
    made = plan()
    path = f"/home/me/.local/share/shoal/lab/releases/{made.digest}/plan.json"
    head = FakeHost({path: made.model_dump_json()})

    def back(**more: str) -> FleetPlan:
        return verbs.earlier(head, "gpu-1", standing(**more), "lab", Path("shoal.yaml"))

    assert back(current="new", served=made.digest, before="old") == made
    assert back(current="new", served="new", before=made.digest) == made
    with pytest.raises(NotRunning, match="lab: no other release has produced a token yet"):
        back(current="new", served="new")
    with pytest.raises(NotRunning, match="gpu-1: release gone cannot be read"):
        back(current="new", served="gone")


@pytest.mark.parametrize("told", ['{"status": {"state": "ready"}}', '{"answer": {}}', '{"status": {"sta', "[1]"])
def test_another_versions_answer_is_an_error_in_words(told: str) -> None:
    """The release that runs may be older or newer than the operator's shoal: that is told, with what mends it."""
    made = plan()
    host = FakeHost(replies={" ".join(reach.relay(FakeHost(), made)[1]): f"{relay.MARK}{told}\n"}, name="gpu-1")
    for ask in (reach.status, reach.live):
        with pytest.raises(HostError, match="gpu-1: shoal relay answers, but not as one of this version"):
            ask(host, made)


def test_the_head_is_asked_over_ssh() -> None:
    """With processes by the release's own file, in containers inside the agent's; what does not answer is told."""
    made = plan()
    status = ClusterStatus(cluster="lab", state=ClusterState.READY)
    told = f"motd\n{relay.MARK}{json.dumps({'status': status.model_dump(mode='json')})}\n"
    _, argv = reach.relay(FakeHost(), made, made.head)
    assert argv == ("/opt/vllm/bin/python", "/home/me/.local/share/shoal/lab/current/shoal.pyz", "relay")
    host = FakeHost(replies={" ".join(argv): told})
    assert reach.status(host, made) == status
    asked = json.loads(host.inputs[0])["record"]
    assert (asked["api_key_file"], asked["serve_url"]) == (
        "/home/me/.local/share/shoal/lab/state/api.key",
        "http://10.0.0.1:8701",
    )
    _, inside = reach.relay(FakeHost(), plan(COMPOSE), plan(COMPOSE).head)
    assert inside == ("python3", "/opt/shoal/shoal.pyz", "relay")
    with pytest.raises(HostError, match="shoal relay ended with code 127"):
        reach.status(FakeHost(), made)


def test_what_the_relay_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record alone asks for the status; with words the model is asked, and its refusal is carried back."""
    status = ClusterStatus(cluster="lab", state=ClusterState.DOWN)
    monkeypatch.setattr(relay, "snapshot", lambda record: status)

    def refuse(*words: object, **more: object) -> None:
        raise NotRunning("no", why="w", fix="f")

    monkeypatch.setattr(relay, "ask", refuse)
    question = {"record": reach.record(plan(), 0).model_dump(mode="json")}
    assert relay.answer(question) == {"status": status.model_dump(mode="json")}
    asked = {**question, "ask": "why?", "max_tokens": 1}
    assert relay.answer(asked) == {"error": {"what": "no", "why": "w", "fix": "f", "kind": "NotRunning"}}


def test_one_host_is_a_cluster(tmp_path: Path) -> None:
    """A head alone is planned as two are."""
    alone = PROCESS.replace("  - {name: gpu-2, fabric: 10.0.0.2, gpus: 1}\n", "")
    made = plan(alone, seen(facts("gpu-1", "10.0.0.1")))
    assert (made.workers, made.parallel.partition(":")[0]) == ((), "tensor 1, pipeline 1")
