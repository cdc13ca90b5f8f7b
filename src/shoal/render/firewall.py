"""The firewall as a file for ``nft -f``: a table of our own, which replaces its earlier self in one step."""

from collections.abc import Iterable, Iterator

from shoal.plan.firewall import Api, Firewall, Ports

TABLE = "shoal"
HEAD = """\
# Made by `shoal firewall`{cluster}. It fits every node: shoal firewall ... | sudo nft -f -
# Take it away: sudo nft delete table inet {table}
# Only new TCP connections are judged: nothing that stands is cut, and RoCE, which is UDP, passes.
add table inet {table}
delete table inet {table}
table inet {table} {{
"""
CHAIN = """\
\tchain nodes {
\t\ttype filter hook input priority filter - 10; policy accept;
\t\tmeta l4proto != tcp accept
\t\tiifname "lo" accept
\t\ttcp flags & (fin | syn | rst | ack) != syn accept
"""


def nftables(plan: Firewall) -> str:
    """The whole file."""
    api = plan.api.sources or () if plan.api else ()
    sets = [*_sets("members", plan.members), *_sets("clients", api)]
    body = [*_accepted("members", plan.members), *_rules(plan)]
    cluster = f" for the cluster {plan.cluster}" if plan.cluster else ""
    text = HEAD.format(cluster=cluster, table=TABLE) + "\n".join(sets) + "\n" + CHAIN
    return text + "".join(f"\t\t{line}\n" for line in body) + "\t}\n}\n"


def _rules(plan: Firewall) -> Iterator[str]:
    if plan.left:
        yield f'tcp dport {{ {", ".join(map(str, plan.left))} }} accept comment "left as it was"'
    if plan.api is not None:
        yield from _api(plan.api)
    for ports in plan.closed:
        yield f'tcp dport {_range(ports)} counter reject with tcp reset comment "{ports.why}"'


def _api(api: Api) -> Iterator[str]:
    """The API stands before the closed ranges: its port may lie in one."""
    if api.sources is None:
        yield f'tcp dport {api.port} accept comment "the API: everybody, who needs its key"'
        return
    for line in _accepted("clients", api.sources):
        family, _, rest = line.partition(" accept")
        yield f"{family} tcp dport {api.port} accept{rest}"
    yield f'tcp dport {api.port} counter reject with tcp reset comment "the API"'


def _range(ports: Ports) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _of(version: int, members: Iterable[str]) -> list[str]:
    return [member for member in members if (":" in member) == (version == 6)]


def _sets(name: str, members: Iterable[str]) -> Iterator[str]:
    members = tuple(members)
    for version in (4, 6):
        if found := _of(version, members):
            elements = ", ".join(found)
            yield f"\tset {name}{version} {{\n\t\ttype ipv{version}_addr; flags interval; auto-merge"
            yield f"\t\telements = {{ {elements} }}\n\t}}"


def _accepted(name: str, members: Iterable[str]) -> Iterator[str]:
    members = tuple(members)
    for version, family in ((4, "ip"), (6, "ip6")):
        if _of(version, members):
            yield f"{family} saddr @{name}{version} accept"
