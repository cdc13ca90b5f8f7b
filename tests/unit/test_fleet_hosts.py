"""The hosts of a cluster file."""

from shoal.ops.fleet.hosts import open_hosts
from shoal.spec.cluster import parse

TEXT = """\
cluster: lab
hosts:
  - name: head
    ssh: me@10.0.0.1
  - name: gpu-2
"""


def test_hosts_have_the_names_of_the_file() -> None:
    """Each is reached as its `ssh` says, else by its name, and is called by its name in messages."""
    hosts = open_hosts(parse(TEXT, "shoal.yaml"), config="/c", sockets="/s")
    assert {name: (host.name, host.by_hand()) for name, host in hosts.items()} == {
        "head": ("head", "ssh -v me@10.0.0.1 true"),
        "gpu-2": ("gpu-2", "ssh -v gpu-2 true"),
    }
