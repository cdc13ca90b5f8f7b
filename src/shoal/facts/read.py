"""All facts of a node, from one snapshot."""

import re
from collections.abc import Mapping

from shoal.facts.node import NodeFacts
from shoal.facts.parse.container import parse_container, parse_docker
from shoal.facts.parse.gpu import parse_gpu
from shoal.facts.parse.machine import parse_machine
from shoal.facts.parse.net import parse_net
from shoal.facts.parse.rdma import parse_rdma
from shoal.facts.parse.stack import parse_stack
from shoal.host.snapshot import Snapshot
from shoal.log import MASK, is_secret

VARIABLE = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)


def node_facts(snapshot: Snapshot) -> NodeFacts:
    """What a snapshot says of its machine. Never raises: what is missing or torn is None."""
    env = parse_env(snapshot)
    return NodeFacts(
        snapshot.name,
        machine=parse_machine(snapshot),
        gpu=parse_gpu(snapshot),
        rdma=parse_rdma(snapshot),
        net=parse_net(snapshot),
        container=parse_container(snapshot),
        docker=parse_docker(snapshot),
        stack=parse_stack(snapshot, env),
        env=env,
    )


def parse_env(snapshot: Snapshot) -> Mapping[str, str] | None:
    """The environment by ``env`` or ``printenv``, secrets masked; None where nobody asked."""
    for program in ("env", "printenv"):
        for argv, reply in snapshot.replies_of(program):
            if reply.code == 0 and len(argv) == 1:
                return {
                    name: MASK if value and is_secret(name) else value for name, value in VARIABLE.findall(reply.out)
                }
    return None
