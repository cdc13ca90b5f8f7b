"""The doctor at work: hosts and captures in, one report out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shoal import __version__
from shoal.checks.run import Choice, Gathered, Report, choose, judge, read
from shoal.errors import ConfigError
from shoal.facts import sources
from shoal.facts.node import NodeFacts
from shoal.host import capture
from shoal.host.base import Host
from shoal.host.gather import gather
from shoal.host.local import LocalHost
from shoal.host.snapshot import Snapshot
from shoal.host.ssh import SshHost

HERE = ("localhost", "local", "127.0.0.1")


def hosts_named(names: Sequence[str]) -> tuple[Host, ...]:
    """A host for each name, once; this machine by its usual names, all others by ssh."""
    return tuple(LocalHost() if name in HERE else SshHost(name) for name in dict.fromkeys(names))


def examine(
    hosts: Sequence[Host], captures: Sequence[Path], choice: Choice, before: Mapping[str, NodeFacts] | None = None
) -> Report:
    """What the chosen checks find on these hosts and captures; ``before`` is what an earlier look found, by node.

    Raises:
        UsageError: the choice names what is not there, or leaves nothing.
        ConfigError: a capture is none.
    """
    chosen = choose(choice)
    kept = loaded(captures)
    gathered = read(hosts, chosen.request())
    every = Gathered((*gathered.snapshots, *kept), gathered.unreachable)
    return judge(chosen, every, hosts=hosts, before=before)


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
