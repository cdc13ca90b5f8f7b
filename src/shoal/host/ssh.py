"""A machine over OpenSSH, with the user's own config, agent, jump hosts and known hosts."""

import hashlib
import os
import re
import stat
from pathlib import Path

from shoal.errors import PreconditionFailed
from shoal.host.base import Host
from shoal.host.far import Cause, FarHost
from shoal.host.local import LocalHost

# Each of these goes before the user's config: no question is ever asked, a host key is always checked, and nothing is
# opened that the command does not need. Keys, names, ports and jump hosts are the config's.
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "LogLevel=ERROR",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",
)

CAUSES = (
    Cause(r"ssh: not found", "there is no ssh on this machine", "sudo apt install openssh-client"),
    Cause(
        r"Offending \S+ key in (?P<file>.+):(?P<line>\d+)[\s\S]*?Host key for (?P<asked>\S+) has changed",
        "its host key is not the one in {file}, line {line}: it was installed anew, or another machine answers",
        "when you know that it was installed anew: ssh-keygen -f {file} -R '{asked}'; ssh {host}",
    ),
    Cause(
        r"Host key verification failed",
        "its host key is not in your known_hosts, and shoal never accepts one by itself",
        "ssh {host}   # compare the fingerprint with the one on its console, and accept it",
    ),
    Cause(
        r"(?P<who>\S+): Permission denied \((?P<methods>[^)]*)\)",
        "{who} took none of your keys, and shoal enters no password (it offers {methods})",
        "ssh-copy-id {host}   # or, where the key has a passphrase: ssh-add",
    ),
    Cause(
        r"Too many authentication failures",
        "the agent offered too many keys before the right one",
        "name the key in ~/.ssh/config: IdentityFile, and IdentitiesOnly yes",
    ),
    Cause(
        r"Could not resolve hostname (?P<asked>[^:\s]+)",
        "no address is known for the name {asked}",
        "getent hosts {asked}   # correct the name, or give it a HostName in ~/.ssh/config",
    ),
    Cause(
        r"[Cc]onnection refused",
        "nothing listens on its ssh port",
        "on its console: systemctl start ssh   # or set Port in ~/.ssh/config",
    ),
    Cause(
        r"timed out",
        "it did not answer in time: it is down, or a firewall drops the packets",
        "look at its power, its cable and its firewall, then: ssh {host}",
    ),
    Cause(
        r"connect to host (?P<asked>\S+) .*(?:No route to host|Network is unreachable)",
        "no way leads to {asked} from here",
        "ip route get {asked}   # look at addresses, netmasks and the cable",
    ),
    Cause(
        r"Connection (?:closed|reset)|Broken pipe|not responding",
        "its ssh server closed the connection",
        "on its console: journalctl -u ssh -n 20",
    ),
    Cause(
        r"Bad owner or permissions on (?P<file>\S+)",
        "ssh does not trust {file}: others may write to it",
        "chmod 600 {file}",
    ),
    Cause(
        r"(?P<file>\S+): (?P<text>line \d+: .*)",
        "ssh does not understand {file}: {text}",
        "correct {file}",
    ),
)


class SshHost(FarHost):
    """A machine over ssh: ``destination`` is a name of the user's ssh config, user@host, or ssh://user@host:port.

    Args:
        name: what it is called in messages; by default its destination.
        config: an ssh config to read instead of the user's.
        patience: seconds to wait for a connection.
    """

    causes = CAUSES

    def __init__(
        self,
        destination: str,
        *,
        name: str = "",
        config: str = "",
        patience: int = 10,
        inner: Host | None = None,
        sockets: str = "",
    ) -> None:
        super().__init__(name or destination, inner or LocalHost(), address=destination)
        self._destination = destination
        self._config = ("-F", config) if config else ()
        # %C alone does not tell two machines apart that have one address, each behind a jump host of its own.
        asked = hashlib.sha256(f"{config}\0{destination}".encode()).hexdigest()[:8]
        self._options = (f"ConnectTimeout={patience}", f"ControlPath={sockets or socket_folder()}/{asked}-%C")
        # What ssh takes at most to notice a dead connection, and a little more.
        self.grace = patience + 20.0

    def carry(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The ssh command. Its last word is what the login shell over there reads."""
        return self._ssh("-Tax", argv)

    def session(self, argv: tuple[str, ...], *, terminal: bool) -> tuple[str, ...]:
        """The command for one who sits before it: input, output and exit code go through as they are."""
        return self._ssh("-tax" if terminal else "-Tax", argv)

    def _ssh(self, flags: str, argv: tuple[str, ...]) -> tuple[str, ...]:
        options = (word for option in (*OPTIONS, *self._options) for word in ("-o", option))
        return ("ssh", *self._config, flags, *options, "--", self._destination, " ".join(map(quoted, argv)))

    def by_hand(self) -> str:
        """The user's own ssh, told to talk."""
        return f"ssh -v {self._destination} true"


def quoted(word: str) -> str:
    r"""A word as every login shell reads it: sh, bash, dash, zsh, and fish, where a backslash counts within quotes."""
    return "'" + re.sub(r"['\\]", lambda found: rf"'\{found[0]}'", word) + "'"


def socket_folder(base: str = "/tmp") -> str:  # noqa: S108  a socket's path has 107 bytes; it is checked below
    """The folder for connections that are kept for a minute: this user's alone.

    Raises:
        PreconditionFailed: somebody else has a thing of that name.
    """
    folder = Path(base) / f"shoal-ssh-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PreconditionFailed(
            f"{folder} is not a folder of yours alone",
            why="whoever else can write there could use your connections",
            fix=f"ls -ld {folder}; rm -r {folder}",
        )
    return str(folder)
