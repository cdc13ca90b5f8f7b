"""The logs of a cluster file's hosts, read over ssh: files of the folders on each, and containers'."""

import re
from collections.abc import Callable, Mapping, Sequence

from shoal.errors import HostError, NotRunning, ShoalError
from shoal.facts.parse.log_time import moments, offset
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.ops.logs import Line, Log, Troubles, merged, said
from shoal.plan.fleet import LOGS, STATE, root_of

DEADLINE = 60.0
PAUSE = 1.0  # between two looks: each is a command on every host
LARGEST = 32 << 20  # bytes of one log at a time
# Prints "size, change, zone", then what was written since $1, the last $2 lines of it. A log that shrank begins anew.
READ = (
    'cd || exit 1; [ -r "$0" ] || exit 3; s=$(wc -c < "$0"); f=$1; [ "$f" -le "$s" ] || f=0; '
    '[ "$((s - f))" -le "$3" ] || f=$((s - $3)); echo $s $(stat -c %Y -- "$0") $(date +%z); '
    'tail -c +$((f + 1)) -- "$0" | head -c $((s - f)) | tail -n "$2"'
)
LIST = 'cd || exit 1; for f in "$0"/*.log "$1"/*.log; do [ -r "$f" ] && echo "$f"; done; exit 0'
SAID = 'docker logs --timestamps --tail "$1" --since "$2" "$0" 2>&1'
EVERY = "+1"  # of `tail -n`: from the first line on


class HostLog:
    """A log file of a host, by its path below the home."""

    def __init__(self, host: Host, speaker: str, path: str, tail: str) -> None:
        self.speaker, self.node = speaker, host.name
        self._host, self._path, self._tail = host, path, tail
        self._position = 0

    def read(self) -> list[Line]:
        """What was written since the last time.

        Raises:
            HostError: the host cannot be asked.
        """
        argv = ("sh", "-c", READ, self._path, str(self._position), self._tail, str(LARGEST))
        told = self._host.run(argv, timeout=DEADLINE, ok=(0, 3))
        head, _, data = told.data.partition(b"\n")
        words = head.decode("ascii", "replace").split()
        if told.code or len(words) != 3:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._position = int(words[0]) - (len(data) - len(whole))
        self._tail = EVERY
        text = whole.decode("utf-8", "replace")
        return said(self.speaker, text, float(words[1]), offset(words[2]), self._host.name)


class ContainerLog:
    """The log of a container of a host, as Docker keeps it."""

    def __init__(self, host: Host, speaker: str, container: str, tail: str) -> None:
        self.speaker, self.node = speaker, host.name
        self._host, self._container = host, container
        self._tail = "all" if tail == EVERY else tail
        self._last = "0"

    def read(self) -> list[Line]:
        """What was said since the last time.

        Raises:
            HostError: the host, or Docker there, cannot be asked.
        """
        argv = ("sh", "-c", SAID, self._container, self._tail, self._last)
        told = self._host.run(argv, timeout=DEADLINE, ok=(0, 1))
        if told.code:
            if "No such container" in told.out:
                return []
            raise HostError(f"{self._host.name}: docker logs {self._container} failed", why=told.out.strip()[-200:])
        stamped = [line.partition(" ") for line in told.out.splitlines()]
        # `--since` has what was said at that very moment once more.
        fresh = [(at, text) for at, _, text in stamped if re.match(r"\d{4}-", at) and at > self._last]
        if fresh:
            self._last, self._tail = fresh[-1][0], "all"
        when = moments([at for at, _ in fresh], 0.0, 0.0)
        return [Line(self.speaker, text, at, self._host.name) for (_, text), at in zip(fresh, when, strict=True)]


def containers(role: str) -> dict[str, str]:
    """What a host of that role runs in containers: the program, and the container's name."""
    own = {"agent": f"ray-{role}"}
    return {**own, "engine": "vllm"} if role == "head" else own


def of_hosts(
    hosts: Mapping[str, Host],
    cluster: str,
    boxes: Mapping[str, Mapping[str, str]],
    tail: int | None,
    troubles: Troubles,
) -> list[Log]:
    """The logs of these hosts; ``boxes`` are the containers of each. A host that cannot be asked is noted.

    Raises:
        NotRunning: no host that can be asked has any.
        HostError: none can be asked.
    """
    root, lines = root_of(".", cluster).removeprefix("./"), EVERY if tail is None else str(tail)

    def ask(host: Host) -> list[Log]:
        found: list[Log] = [
            ContainerLog(host, _speaker(host.name, part), name, lines)
            for part, name in boxes.get(host.name, {}).items()
        ]
        told = host.run(("sh", "-c", LIST, f"{root}/{LOGS}", f"{root}/{STATE}/{LOGS}"), timeout=DEADLINE)
        paths = told.out.splitlines()
        return found + [HostLog(host, _speaker(host.name, _part(path)), path, lines) for path in paths]

    answers = fanout(list(hosts.values()), ask, deadline=DEADLINE)
    for name, answer in zip(hosts, answers, strict=True):
        troubles.heard(name, answer if isinstance(answer, ShoalError) else None)
    errors = [answer for answer in answers if isinstance(answer, ShoalError)]
    if len(errors) == len(answers):
        raise errors[0]
    logs = [log for answer in answers if not isinstance(answer, ShoalError) for log in answer]
    if not logs:
        raise NotRunning(f"there are no logs of {cluster} on its hosts: it was not up there yet", fix="shoal up")
    return logs


def _part(path: str) -> str:
    """What wrote a log: agent, engine, vllm; or ray."""
    name = path.rpartition("/")[2].removesuffix(".log")
    return "ray" if name.endswith(".ray") else name


def _speaker(node: str, part: str) -> str:
    return node if part == "agent" else f"{node}.{part}"


def together(logs: Sequence[Log], hosts: Mapping[str, Host], troubles: Troubles) -> Callable[[], list[Line]]:
    """A reader of logs of several hosts, asked at once. One that cannot be asked is noted, and asked again."""
    of_host = {name: [log for log in logs if log.node == name] for name in hosts}
    asked = [host for name, host in hosts.items() if of_host[name]]

    def ask(host: Host) -> list[Line]:
        return merged([log.read() for log in of_host[host.name]])

    def read() -> list[Line]:
        answers = fanout(asked, ask, deadline=DEADLINE)
        for host, answer in zip(asked, answers, strict=True):
            troubles.heard(host.name, answer if isinstance(answer, ShoalError) else None)
        return merged([answer for answer in answers if not isinstance(answer, ShoalError)])

    return read
