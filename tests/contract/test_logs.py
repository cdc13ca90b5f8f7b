"""``shoal logs -f FILE`` over a real sshd: two hosts' logs in the order of time, and what is written later."""

from collections.abc import Iterator

import pytest
from tests.contract.conftest import SshLab

from shoal.host.ssh import SshHost
from shoal.ops.logs import Troubles, choose
from shoal.ops.logs_hosts import of_hosts, together

ROOT = ".local/share/shoal/tale"


def named(lab: SshLab, name: str, login: str) -> SshHost:
    """A login of the server under another name."""
    return SshHost(login, name=name, config=lab.config, sockets=lab.sockets)


def append(host: SshHost, path: str, text: str) -> None:
    """Write to a log there, as a program does."""
    host.run(["sh", "-c", 'mkdir -p ~/"$0"; cat >> ~/"$0/$1"', *path.rsplit("/", 1)], timeout=20, input=text)


@pytest.fixture
def hosts(ssh_lab: SshLab) -> Iterator[dict[str, SshHost]]:
    """Two hosts that share a home; one has a dash for a login shell."""
    made = {"gpu-1": named(ssh_lab, "gpu-1", "plain"), "gpu-2": named(ssh_lab, "gpu-2", "dash")}
    yield made
    made["gpu-1"].run(["sh", "-c", 'rm -r ~/"$0"', ROOT], timeout=20)


def test_logs_of_two_hosts(hosts: dict[str, SshHost]) -> None:
    """Lines of all logs come by time, once each, whole, and go on where they were read to."""
    one = hosts["gpu-1"]
    append(one, f"{ROOT}/logs/agent.log", "2026-03-01T00:00:01Z a\n2026-03-01T00:00:03Z b\ncut o")
    append(one, f"{ROOT}/state/logs/vllm.log", "2026-03-01T00:00:02Z \xff v\n")
    append(one, f"{ROOT}/state/logs/gpu-1.ray.log", "chatter\n")
    notes: list[str] = []
    troubles = Troubles(notes.append)
    logs = of_hosts(hosts, "tale", {}, None, troubles)
    read = together(choose(logs, None), hosts, troubles)
    first = [(line.speaker, line.text[21:]) for line in read()]
    every = [("", "a"), (".vllm", "\xff v"), ("", "b")]
    assert first == [(f"{host}{part}", text) for part, text in every for host in hosts]
    append(one, f"{ROOT}/logs/agent.log", "ff\n")
    assert [(line.speaker, line.text) for line in read()] == [("gpu-1", "cut off"), ("gpu-2", "cut off")]
    assert (read(), notes) == ([], [])


def test_the_last_lines(hosts: dict[str, SshHost]) -> None:
    """With a tail the first reading has the end of each log alone."""
    append(hosts["gpu-1"], f"{ROOT}/logs/agent.log", "".join(f"line {n}\n" for n in range(500)))
    troubles = Troubles(pytest.fail)
    only = {"gpu-2": hosts["gpu-2"]}
    read = together(of_hosts(only, "tale", {}, 2, troubles), only, troubles)
    assert [line.text for line in read()] == ["line 498", "line 499"]
