"""The doctor at work: hosts and captures in, one report out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shoal import __version__
from shoal.checks.run import Choice, Gathered, Report, choose, judge, read
from shoal.errors import ConfigError, UsageError
from shoal.facts import sources
from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.host import capture
from shoal.host.base import Host
from shoal.host.gather import gather
from shoal.host.local import LocalHost
from shoal.host.snapshot import Snapshot
from shoal.host.ssh import SshHost

MACHINE_ID = "/etc/machine-id"
HERE = ("localhost", "local", "127.0.0.1")


def hosts_named(names: Sequence[str]) -> tuple[Host, ...]:
    """A host for each name, once; this machine by its usual names, all others by ssh."""
    return tuple(LocalHost() if name in HERE else SshHost(name) for name in dict.fromkeys(names))


def examine(
    hosts: Sequence[Host],
    captures: Sequence[Path],
    choice: Choice,
    before: Mapping[str, NodeFacts] | None = None,
    *,
    earlier: Sequence[Path] = (),
) -> Report:
    """What the chosen checks find on these hosts and captures; ``before`` is what an earlier look found, by node.

    ``earlier`` are captures that stand for an earlier look where there was none.

    Raises:
        UsageError: the choice names what is not there, or leaves nothing; an earlier capture is of none of the nodes.
        ConfigError: a capture is none.
    """
    chosen = choose(choice)
    kept, past = loaded(captures), loaded(earlier)
    gathered = read(hosts, chosen.request())
    every = Gathered((*gathered.snapshots, *kept), gathered.unreachable)
    if before is None:
        before = paired(every, past)
    return judge(chosen, every, hosts=hosts, before=before)


def paired(now: Gathered, past: Sequence[Snapshot]) -> dict[str, NodeFacts]:
    """Earlier captures by the node they are of: the same name, else the same machine id, else one and one.

    Raises:
        UsageError: one is of none of the nodes, or was taken after the node was read.
    """
    found = {}
    for old in past:
        new = _same(old, now.snapshots, alone=len(past) == len(now.snapshots) == 1)
        if new is not None:
            if None not in {old.taken, new.taken} and (old.taken or 0) > (new.taken or 0):
                raise UsageError(f"--before: {old.name} was taken after {new.name} was read", fix="swap the two")
            found[new.name] = node_facts(old)
        elif old.name not in now.unreachable:
            read = ", ".join(one.name for one in now.snapshots) or "no node"
            why = f"read now: {read}; two readings are of one node by its name, or by its machine id"
            raise UsageError(f"--before: {old.name} is none of the nodes", why=why)
    return found


def _same(old: Snapshot, now: Sequence[Snapshot], *, alone: bool) -> Snapshot | None:
    machine = old.word(MACHINE_ID)
    named = next((one for one in now if one.name == old.name), None)
    if named is None and machine:
        named = next((one for one in now if one.word(MACHINE_ID) == machine), None)
    if named is None and alone and not (machine and now[0].word(MACHINE_ID)):
        named = now[0]
    return named


def loaded(captures: Sequence[Path]) -> tuple[Snapshot, ...]:
    """All captures that are named; those that have one name get a number."""
    taken = [one for path in captures for one in capture.load(path)]
    names: dict[str, int] = {}
    for place, one in enumerate(taken):
        names[one.name] = names.get(one.name, 0) + 1
        if names[one.name] > 1:
            taken[place] = replace(one, name=f"{one.name} ({names[one.name]})")
    return tuple(taken)


def keep(host: Host, out: Path) -> Snapshot:
    """Read everything of a host and write it to a file that only its owner may read.

    Raises:
        HostError: the host could not be asked.
        ConfigError: the file cannot be written.
    """
    if not out.name.endswith(capture.TARS):
        raise ConfigError(
            f"{out}: expected a name that ends with .tar or .tar.gz", fix=f"shoal capture -o {out}.tar.gz"
        )
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}", fix=f"mkdir -p {out.parent}")
    taken = gather(host, sources.request(None))
    LocalHost().write(str(out), capture.compressed(capture.pack(taken, __version__), out), mode=0o600)
    return taken
