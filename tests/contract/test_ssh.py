"""What a real OpenSSH server may do to us: each is another error than a failed command, with its remedy."""

import socket
from pathlib import Path

import pytest
from tests.contract.conftest import SshLab
from tests.sshd import make_key

from shoal.errors import HostUnreachable, TimedOut
from shoal.host.base import Result
from shoal.host.fanout import fanout


def failure(lab: SshLab, name: str, config: Path | None = None, patience: int = 10) -> HostUnreachable:
    """Why a host cannot be reached."""
    host = lab.host(name, config=str(config or ""), patience=patience)
    with pytest.raises(HostUnreachable) as raised:
        host.run(["true"], timeout=10)
    return raised.value


def changed(lab: SshLab, file: Path, *changes: tuple[str, str]) -> Path:
    """The client's config with some words replaced, and with connections of its own."""
    text = Path(lab.config).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


def test_a_changed_host_key_is_refused(ssh_lab: SshLab, tmp_path: Path) -> None:
    """Where another key is known, nothing is run, and the line that holds it is named."""
    known = tmp_path / "known"
    known.write_text(f"node {make_key(tmp_path / 'other')}")
    error = failure(
        ssh_lab, "plain", changed(ssh_lab, tmp_path / "config", (f"{ssh_lab.keys.folder}/known", str(known)))
    )
    assert (error.what, error.why) == (
        "plain cannot be reached",
        f"its host key is not the one in {known}, line 1: it was installed anew, or another machine answers",
    )
    assert error.fix == f"when you know that it was installed anew: ssh-keygen -f {known} -R 'node'; ssh plain"


@pytest.mark.parametrize("wish", ["yes", "no", "accept-new", "ask"])
def test_an_unknown_host_key_is_refused(ssh_lab: SshLab, tmp_path: Path, wish: str) -> None:
    """Where no key is known, nothing is run and none is written down, whatever the user's config wishes."""
    known = tmp_path / "known"
    known.touch()
    wishes = ("Host *", f"Host *\n  StrictHostKeyChecking {wish}")
    config = changed(ssh_lab, tmp_path / "config", (f"{ssh_lab.keys.folder}/known", str(known)), wishes)
    error = failure(ssh_lab, "plain", config)
    assert error.why == "its host key is not in your known_hosts, and shoal never accepts one by itself"
    assert known.read_text() == ""


def test_a_password_is_never_asked_for(ssh_lab: SshLab, tmp_path: Path) -> None:
    """A server that wants a password instead of the key is an error at once."""
    make_key(tmp_path / "stranger")
    mine = f"{ssh_lab.keys.folder}/user"
    error = failure(ssh_lab, "plain", changed(ssh_lab, tmp_path / "config", (mine, str(tmp_path / "stranger"))))
    assert "took none of your keys, and shoal enters no password (it offers publickey,password" in error.why
    assert error.fix == "ssh-copy-id plain   # or, where the key has a passphrase: ssh-add"


def test_a_name_that_nobody_knows(ssh_lab: SshLab) -> None:
    """A name without an address is named."""
    assert failure(ssh_lab, "gpu-9.invalid").why == "no address is known for the name gpu-9.invalid"


def test_a_port_on_which_nothing_listens(ssh_lab: SshLab) -> None:
    """A refused connection is told as such."""
    assert failure(ssh_lab, "ssh://127.0.0.1:1").why == "nothing listens on its ssh port"


def test_a_machine_that_never_answers(ssh_lab: SshLab) -> None:
    """A machine that takes the connection and stays silent is given up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(ssh_lab, f"ssh://127.0.0.1:{silent.getsockname()[1]}", patience=1)
    assert error.why == "it did not answer in time: it is down, or a firewall drops the packets"


def test_a_config_that_ssh_cannot_read(ssh_lab: SshLab, tmp_path: Path) -> None:
    """A mistake in the user's config is told with its line."""
    config = tmp_path / "config"
    config.write_text("Host x\n  Prot 22\n")
    error = failure(ssh_lab, "plain", config)
    assert (error.why, error.fix) == (
        f"ssh does not understand {config}: line 2: Bad configuration option: prot",
        f"correct {config}",
    )


def test_a_login_that_is_refused(ssh_lab: SshLab) -> None:
    """An account that may not log in is not reached, in the account's own words."""
    assert failure(ssh_lab, "nologin").why == "This account is currently not available."


def test_what_a_login_shell_says_is_no_output(ssh_lab: SshLab) -> None:
    """A talking login changes neither output nor complaint of a command."""
    argv = ("sh", "-c", "echo out; echo err >&2")
    assert ssh_lab.host("noisy").run(argv, timeout=20) == Result(argv, 0, "out\n", "err\n")


def test_the_users_config_is_kept(ssh_lab: SshLab, tmp_path: Path) -> None:
    """A jump host, a forwarding and a command for logins in the config do not come between."""
    more = "Host far\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias node\n  ProxyJump plain\n"
    wishes = "Host *\n  RemoteCommand id\n  RequestTTY force\n  LocalForward 127.0.0.1:1 127.0.0.1:1\n"
    config = tmp_path / "config"
    config.write_text(more.format(port=ssh_lab.ports["dash"]) + Path(ssh_lab.config).read_text() + wishes)
    logged = ssh_lab.log.read_text().count("Accepted publickey")
    assert ssh_lab.host("far", config=str(config)).run(["printf", "a\\n"], timeout=20).data == b"a\n"
    assert ssh_lab.log.read_text().count("Accepted publickey") == logged + 2


def test_one_connection_serves_many_commands(ssh_lab: SshLab, tmp_path: Path) -> None:
    """The second command needs no second login, and the kept connection's socket is the user's alone."""
    host = ssh_lab.host("dash")
    host.run(["true"], timeout=20)
    logged = ssh_lab.log.read_text().count("Accepted publickey")
    for _ in range(3):
        host.run(["true"], timeout=20)
    assert ssh_lab.log.read_text().count("Accepted publickey") == logged
    assert {file.stat().st_mode & 0o077 for file in Path(ssh_lab.sockets).iterdir() if file.is_socket()} == {0}


def test_a_connection_that_breaks_is_no_failed_command(ssh_lab: SshLab, tmp_path: Path) -> None:
    """Where the server's side dies in the middle of a command, the host broke off."""
    config = changed(ssh_lab, tmp_path / "config", ("HostName 127.0.0.1", "HostName localhost"))
    host = ssh_lab.host("plain", config=str(config))
    host.run(["true"], timeout=20)
    # The session's own server process, two above the command's guard.
    script = 'p=$PPID; for i in 1 2; do p=$(cut -d " " -f 4 /proc/$p/stat); done; kill -9 $p; sleep 60'
    with pytest.raises(HostUnreachable) as raised:
        host.run(["sh", "-c", script], timeout=20)
    assert raised.value.what == "plain broke off in the middle of a command"


def test_a_host_that_hangs_is_named_and_the_others_are_asked(ssh_lab: SshLab) -> None:
    """With one machine silent, all others answer, and the silent one is late."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names = ["plain", f"ssh://127.0.0.1:{silent.getsockname()[1]}", "dash"]
        hosts = [ssh_lab.host(name, patience=5) for name in names]
        first, late, third = fanout(hosts, lambda host: host.run(["echo", "x"], timeout=20).out, deadline=4)
    assert (first, third) == ("x\n", "x\n")
    assert isinstance(late, TimedOut)
    assert late.what == f"{names[1]} did not answer within 4 s"
