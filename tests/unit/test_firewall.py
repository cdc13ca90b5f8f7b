"""The rules of ``shoal firewall``: who may connect, what is closed, and the text that nft reads."""

from pathlib import Path

import pytest

from shoal.errors import ConfigError, UsageError
from shoal.host.fake import FakeHost
from shoal.ops.firewall import KERNEL, kernel_ports, rules
from shoal.plan.firewall import Api, Firewall, Ports, Wish, firewall, network, of_cluster, of_environment
from shoal.render.firewall import nftables
from shoal.spec.cluster import parse

CLUSTER = """\
cluster: pair
hosts:
  - {name: a, fabric: 192.168.100.1, ssh: "ssh://me@a:50022"}
  - {name: b, fabric: "fd00::2", env: {SHOAL_PORT_BASE: 30000, SHOAL_AGENT_PORT: 9700}}
serving: {port: 9000}
"""
RAY = "Ray: node manager, object manager, workers, metrics"
KERNELS = "torch's store, Gloo, NCCL: the kernel's range for ports that nobody chose"
WHOLE = """\
# Made by `shoal firewall`. It fits every node: shoal firewall ... | sudo nft -f -
# Take it away: sudo nft delete table inet shoal
# Only new TCP connections are judged: nothing that stands is cut, and RoCE, which is UDP, passes.
add table inet shoal
delete table inet shoal
table inet shoal {
	set members4 {
		type ipv4_addr; flags interval; auto-merge
		elements = { 192.168.100.0/24 }
	}
	set clients4 {
		type ipv4_addr; flags interval; auto-merge
		elements = { 10.0.0.0/8 }
	}
	set clients6 {
		type ipv6_addr; flags interval; auto-merge
		elements = { fd00::9 }
	}
	chain nodes {
		type filter hook input priority filter - 10; policy accept;
		meta l4proto != tcp accept
		iifname "lo" accept
		tcp flags & (fin | syn | rst | ack) != syn accept
		ip saddr @members4 accept
		tcp dport { 50022 } accept comment "left as it was"
		ip saddr @clients4 tcp dport 8000 accept
		ip6 saddr @clients6 tcp dport 8000 accept
		tcp dport 8000 counter reject with tcp reset comment "the API"
		tcp dport 6379 counter reject with tcp reset comment "Ray: GCS"
		tcp dport 32768-60999 counter reject with tcp reset comment "torch"
	}
}
"""


def test_a_cluster_file() -> None:
    """Members are the fabric addresses; every host's own ports are closed, and an ssh port stays open."""
    assert of_cluster(parse(CLUSTER, "shoal.yaml"), Wish()) == Firewall(
        cluster="pair",
        members=("192.168.100.1", "fd00::2"),
        closed=(
            Ports(27000, 27099, RAY),
            Ports(30000, 30099, RAY),
            Ports(6379, 6379, "Ray: GCS"),
            Ports(8700, 8700, "shoal: agents"),
            Ports(9700, 9700, "shoal: agents"),
            Ports(8701, 8701, "shoal: the engine's supervisor"),
            Ports(8710, 8710, "shoal: a push of models or images, while one runs"),
            Ports(32768, 60999, KERNELS),
        ),
        api=Api(9000),
        left=(50022,),
    )


def test_an_environment() -> None:
    """Without a file the members are those that the environment and the call name, once each."""
    env = {"SHOAL_EXPECT": "10.0.0.1:1, 10.0.0.2:8", "VLLM_HOST_IP": "10.0.0.1", "RAY_ADDRESS": "10.0.0.1:6400"}
    plan = of_environment(["10.0.0.3"], env, Wish(also=("10.9.0.0/16",), kernel_ports=(20000, 30000)))
    assert plan.members == ("10.0.0.3", "10.0.0.1", "10.0.0.2", "10.9.0.0/16")
    assert [(ports.first, ports.last) for ports in plan.closed] == [
        (27000, 27099), (6400, 6400), (8700, 8700), (8701, 8701), (8710, 8710), (20000, 30000),
    ]  # fmt: skip
    assert plan.api == Api(8000)


def test_an_api_for_few() -> None:
    """Who may use the API is named in the shortest spelling; an API on loopback needs no rule."""
    spec = parse(CLUSTER, "shoal.yaml")
    assert of_cluster(spec, Wish(api_from=("10.0.0.0/8", "fd00:0::1"))).api == Api(9000, ("10.0.0.0/8", "fd00::1"))
    quiet = parse(CLUSTER.replace("port: 9000", "host: loopback"), "shoal.yaml")
    assert of_cluster(quiet, Wish()).api is None


def test_the_text() -> None:
    """The file has a table of its own that replaces itself, members before all, and the API before what is closed."""
    plan = Firewall(
        "", ("192.168.100.0/24",), (Ports(6379, 6379, "Ray: GCS"), Ports(32768, 60999, "torch")),
        Api(8000, ("10.0.0.0/8", "fd00::9")), (50022,),
    )  # fmt: skip
    assert nftables(plan) == WHOLE


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gpu-1", "'gpu-1' is no address and no network: does not appear to be an IPv4 or IPv6 network"),
        ("10.0.0.1/8", "'10.0.0.1/8' is no address and no network: 10.0.0.1/8 has host bits set"),
        ("", "'' is no address and no network: does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_words_that_are_no_network(word: str, said: str) -> None:
    """What is neither address nor network is refused by name: nothing of it reaches nft."""
    with pytest.raises(ConfigError) as caught:
        network(word)
    assert caught.value.what == said


def test_machines_that_are_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed where a machine's address is not known, or none is named, or they are named twice."""
    monkeypatch.chdir(tmp_path)
    auto = parse(CLUSTER.replace("fabric: 192.168.100.1, ", ""), "shoal.yaml")
    with pytest.raises(ConfigError, match="the fabric address of a is not in the file"):
        of_cluster(auto, Wish())
    with pytest.raises(ConfigError, match="no machine of the cluster is named"):
        rules(None, (), {}, Wish())
    with pytest.raises(UsageError, match="both a cluster file and addresses"):
        rules(tmp_path / "shoal.yaml", ("10.0.0.1",), {}, Wish())


def test_the_file_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, the shoal.yaml of this folder is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shoal.yaml").write_text(CLUSTER)
    assert rules(None, (), {}, Wish()) == nftables(of_cluster(parse(CLUSTER, "shoal.yaml"), Wish()))


@pytest.mark.parametrize(
    ("said", "here", "found"),
    [
        (None, True, (1024, 2048)),
        (None, False, (32768, 60999)),
        ((5, 6), True, (5, 6)),
    ],
)
def test_ports_of_the_kernels_choice(said: tuple[int, int] | None, *, here: bool, found: tuple[int, int]) -> None:
    """What is said counts first, then this machine's own range, where the rules are for it."""
    assert kernel_ports(FakeHost({KERNEL: "1024\t2048\n"}), said, here=here) == found
    assert kernel_ports(FakeHost(), None, here=True) == (32768, 60999)


def test_an_api_in_a_closed_range_stays_open() -> None:
    """Where the API's port lies among the closed ones, its rule stands before them."""
    text = nftables(firewall("", ["10.0.0.1"], [{}], Api(40000), Wish()))
    assert text.index("tcp dport 40000 accept") < text.index("tcp dport 32768-60999")
