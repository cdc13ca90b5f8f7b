"""Commands that are carried to a machine: the command line, the way back, and each failure with its remedy."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import CommandFailed, HostUnreachable, PreconditionFailed, TimedOut, WriteFailed
from shoal.host.base import Host, Result
from shoal.host.fake import FakeHost
from shoal.host.far import LIST, MARK, RUN, FarHost
from shoal.host.ssh import SshHost, quoted, socket_folder
from shoal.host.wrap import WrapHost, as_root, container, namespaces, network


class Carrier(FakeHost):
    """A host that answers every command with one result, or has no time for it."""

    def __init__(self, code: int = 0, out: str = "", err: str = "", *, late: bool = False) -> None:
        super().__init__(name="near")
        self.answer, self.late = (code, out, err), late

    def run(self, argv: object, **how: object) -> Result:
        """The one result."""
        self.calls.append(tuple(argv))  # type: ignore[arg-type]
        if self.late:
            raise TimedOut("near: it did not end")
        code, out, err = self.answer
        return Result((), code, out, err)


def ssh(carrier: Host, **more: object) -> SshHost:
    return SshHost("root@gpu-2", inner=carrier, sockets="/s", **more)  # type: ignore[arg-type]


def test_the_ssh_command() -> None:
    """The options that must hold go before the user's config; the command is one word, quoted once."""
    assert ssh(FakeHost(), patience=7).carry(("printf", "%s", "a b", "it's")) == (
        "ssh", "-Tax",
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR", "-o", "RemoteCommand=none",
        "-o", "ClearAllForwardings=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
        "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", "ConnectTimeout=7",
        "-o", "ControlPath=/s/9ec21a44-%C",
        "--", "root@gpu-2", r"""'printf' '%s' 'a b' 'it'\''s'""",
    )  # fmt: skip


def test_a_destination_is_never_an_option() -> None:
    """A destination that begins with a dash stands behind the end of the options."""
    host = SshHost("-oProxyCommand=id", inner=FakeHost(), sockets="/s", config="/c")
    assert host.carry(("true",))[:3] == ("ssh", "-F", "/c")
    assert host.carry(("true",))[-3:] == ("--", "-oProxyCommand=id", "'true'")


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40))
def test_a_quoted_word_is_one_word_to_a_shell(word: str) -> None:
    """A shell reads a quoted word back as it was, whatever it holds."""
    told = subprocess.run(["sh", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True, timeout=20)
    assert told.stdout.decode() == word


def test_a_prefix_is_put_before_the_command() -> None:
    """Each place within a machine is one prefix."""
    near = FakeHost(name="near")
    prefixes = {
        as_root(near): ("sudo", "-n", "--"),
        container(near, "ray-head"): ("docker", "exec", "-i", "ray-head"),
        namespaces(near, 42, name="gpu-1"): ("nsenter", "--target", "42", "--all", "--"),
        network(near, "gpu-1"): ("ip", "netns", "exec", "gpu-1"),
    }
    assert {host.name: host.carry(("id", "-u")) for host in prefixes if host.name != "gpu-1"} == {
        "near": ("sudo", "-n", "--", "id", "-u"),
        "ray-head": ("docker", "exec", "-i", "ray-head", "id", "-u"),
    }
    assert [host.carry(()) for host in prefixes] == list(prefixes.values())


def test_what_comes_back_is_the_commands_own() -> None:
    """What a login shell said before the command is cut off, and the code is the command's, not the carrier's."""
    carrier = Carrier(255, f"welcome\n{MARK}out {MARK}\n", f"setlocale: no\n{MARK}err {MARK}\n{MARK}7")
    host = WrapHost(carrier, ("in",), name="far")
    assert host.run(["cmd", "x"], timeout=5, ok=(7,)) == Result(("cmd", "x"), 7, f"out {MARK}\n", f"err {MARK}\n")
    assert carrier.calls == [("in", "sh", "-c", RUN, MARK, "5", "cmd", "x")]


def test_the_far_script_is_what_a_shell_runs() -> None:
    """The script marks the beginning on both streams, and says the code at the end of the second."""
    argv = ["sh", "-c", RUN, MARK, "5", "sh", "-c", "echo o; echo e >&2; exit 3"]
    told = subprocess.run(argv, capture_output=True, check=True, timeout=20)
    assert (told.stdout, told.stderr) == (f"{MARK}o\n".encode(), f"{MARK}e\n{MARK}3".encode())


CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
Add correct host key in /home/u/known to get rid of this message.
Offending ED25519 key in /home/u/known:12
Host key for gpu-2 has changed and you have requested strict checking.
Host key verification failed.
"""

# What OpenSSH 9.2 prints, and what a reader is told: why, fix.
SSH_SAYS = {
    CHANGED: (
        "its host key is not the one in /home/u/known, line 12: it was installed anew, or another machine answers",
        "when you know that it was installed anew: ssh-keygen -f /home/u/known -R 'gpu-2'; ssh root@gpu-2",
    ),
    "No ED25519 host key is known for gpu-2 and you have requested strict checking.\nHost key verification failed.\n": (
        "its host key is not in your known_hosts, and shoal never accepts one by itself",
        "ssh root@gpu-2   # compare the fingerprint with the one on its console, and accept it",
    ),
    "root@gpu-2: Permission denied (publickey,password).\n": (
        "root@gpu-2 took none of your keys, and shoal enters no password (it offers publickey,password)",
        "ssh-copy-id root@gpu-2   # or, where the key has a passphrase: ssh-add",
    ),
    "Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures\n": (
        "the agent offered too many keys before the right one",
        "name the key in ~/.ssh/config: IdentityFile, and IdentitiesOnly yes",
    ),
    "ssh: Could not resolve hostname gpu-2: Name or service not known\n": (
        "no address is known for the name gpu-2",
        "getent hosts gpu-2   # correct the name, or give it a HostName in ~/.ssh/config",
    ),
    "ssh: connect to host 10.0.0.2 port 22: Connection refused\n": (
        "nothing listens on its ssh port",
        "on its console: systemctl start ssh   # or set Port in ~/.ssh/config",
    ),
    "ssh: connect to host 10.0.0.2 port 22: Connection timed out\n": (
        "it did not answer in time: it is down, or a firewall drops the packets",
        "look at its power, its cable and its firewall, then: ssh root@gpu-2",
    ),
    "Connection timed out during banner exchange\nConnection to 10.0.0.2 port 22 timed out\n": (
        "it did not answer in time: it is down, or a firewall drops the packets",
        "look at its power, its cable and its firewall, then: ssh root@gpu-2",
    ),
    "ssh: connect to host 10.0.0.2 port 22: No route to host\n": (
        "no way leads to 10.0.0.2 from here",
        "ip route get 10.0.0.2   # look at addresses, netmasks and the cable",
    ),
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.2 port 22\n": (
        "its ssh server closed the connection",
        "on its console: journalctl -u ssh -n 20",
    ),
    "Bad owner or permissions on /home/u/.ssh/config\n": (
        "ssh does not trust /home/u/.ssh/config: others may write to it",
        "chmod 600 /home/u/.ssh/config",
    ),
    "/home/u/.ssh/config: line 3: Bad configuration option: hots\n/home/u/.ssh/config: terminating, 1 bad option\n": (
        "ssh does not understand /home/u/.ssh/config: line 3: Bad configuration option: hots",
        "correct /home/u/.ssh/config",
    ),
    "ssh: not found": ("there is no ssh on this machine", "sudo apt install openssh-client"),
    "This account is currently not available.\n": (
        "This account is currently not available.",
        "try by hand: ssh -v root@gpu-2 true",
    ),
    "": ("it ended with code 255 and said nothing", "try by hand: ssh -v root@gpu-2 true"),
}


def failure(host: FarHost) -> HostUnreachable:
    with pytest.raises(HostUnreachable) as raised:
        host.run(["true"], timeout=5)
    return raised.value


@pytest.mark.parametrize("said", SSH_SAYS)
def test_why_ssh_failed_is_said_with_the_remedy(said: str) -> None:
    """What ssh says is told in words, with the command that mends it."""
    error = failure(ssh(Carrier(255, "", said), name="gpu-2"))
    assert (error.what, error.why, error.fix) == ("gpu-2 cannot be reached", *SSH_SAYS[said])


WRAPS_SAY = {
    "sudo: a password is required\n": (
        "sudo asks for a password there",
        "on near: sudo visudo, and give the user NOPASSWD; or name root as the ssh user",
    ),
    "docker: not found": ("docker is not installed there", "on near: install docker"),
    "timeout: failed to run command \u2018sudo\u2019: No such file or directory\n": (
        "sudo is not installed there",
        "on near: install sudo",
    ),
    "Error response from daemon: No such container: ray-head\n": (
        "there is no container ray-head",
        "docker ps -a   # look at its name",
    ),
    "Error response from daemon: Container 4f1 is not running\n": (
        "the container is not running",
        "docker start 4f1",
    ),
    "nsenter: stat of /proc/99/ns/user failed: No such file or directory\n": (
        "process 99, whose namespaces are meant, is gone",
        "start it again",
    ),
    'Cannot open network namespace "gpu-9": No such file or directory\n': (
        "there is no network namespace gpu-9",
        "ip netns list",
    ),
    "something new\n": ("something new", "try by hand: in true"),
}


@pytest.mark.parametrize("said", WRAPS_SAY)
def test_why_a_prefix_failed_is_said_with_the_remedy(said: str) -> None:
    """What sudo, docker and nsenter say is told in words, with the command that mends it."""
    error = failure(WrapHost(Carrier(1, "", said), ("in",), name="far"))
    assert (error.what, error.why, error.fix) == ("far cannot be reached", *WRAPS_SAY[said])


def test_a_command_that_never_said_its_code_was_broken_off() -> None:
    """A connection that breaks in the middle is no failure of the command, and no success."""
    error = failure(ssh(Carrier(255, f"{MARK}half", f"{MARK}client_loop: send disconnect: Broken pipe\n")))
    assert (error.what, error.why) == (
        "root@gpu-2 broke off in the middle of a command",
        "its ssh server closed the connection",
    )


def test_a_connection_that_hangs_is_named() -> None:
    """Where not even the far deadline was heard of, the command is late, and the connection is named as the reason."""
    with pytest.raises(TimedOut) as raised:
        ssh(Carrier(late=True)).run(["id", "-u"], timeout=5)
    assert (raised.value.what, raised.value.why) == (
        "root@gpu-2: id -u did not end within 5 s",
        "root@gpu-2 did not even say that it killed it: the connection hangs",
    )


def test_a_killed_command_in_time_is_not_late() -> None:
    """A command that somebody killed before its deadline failed with code 137."""
    with pytest.raises(CommandFailed):
        ssh(Carrier(0, MARK, f"{MARK}{MARK}137")).run(["id"], timeout=5)


def test_a_write_that_was_refused_says_where_to_look() -> None:
    """The machine's words, and the commands that show the folder and its disk."""
    said = f"{MARK}mktemp: failed to create file via template '/etc/x/.y.XXXXXX': Permission denied\n{MARK}1"
    with pytest.raises(WriteFailed) as raised:
        ssh(Carrier(1, MARK, said)).write("/etc/x/y", "z")
    assert (raised.value.what, raised.value.fix) == (
        "root@gpu-2: /etc/x/y could not be written",
        "on root@gpu-2: ls -ld /etc/x; df -h /etc/x",
    )
    assert raised.value.why.endswith("Permission denied")


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    """Bytes in a file's name that are no text are listed as Python's own functions give them."""
    out = MARK.encode() + b"a\xff\0b\0"
    host = ssh(FakeHost())
    carried = " ".join(host.carry(("sh", "-c", RUN, MARK, "60", "sh", "-c", LIST, "/d")))
    told = ssh(FakeHost(replies={carried: Result((), 0, "", f"{MARK}{MARK}0", out)}))
    assert told.list("/d") == ("a\udcff", "b")


def test_the_socket_folder_is_the_users_alone(tmp_path: Path) -> None:
    """It is made with mode 0700, used again, and refused where others could write to it."""
    folder = Path(socket_folder(str(tmp_path)))
    assert (folder.stat().st_mode & 0o777, socket_folder(str(tmp_path))) == (0o700, str(folder))
    folder.chmod(0o770)
    with pytest.raises(PreconditionFailed) as raised:
        socket_folder(str(tmp_path))
    assert raised.value.what == f"{folder} is not a folder of yours alone"
