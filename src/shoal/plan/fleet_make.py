"""From the cluster file and what its hosts say to the plan. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shoal.errors import ConfigError, PreconditionFailed, ShoalError
from shoal.facts.node import NodeFacts
from shoal.plan.container import Profile
from shoal.plan.draft import fabric_address
from shoal.plan.fabric import NodeFabric
from shoal.plan.fleet import FleetPlan, PlannedFile, digest_of, root_of
from shoal.plan.fleet_node import Draft, deployment, environment, unit_digests
from shoal.plan.parallel import Parallel, over_gpus
from shoal.spec.cluster import FOUND_BY_PLAN, ClusterSpec, HostSpec
from shoal.state.standing import Standing


@dataclass(frozen=True)
class Seen:
    """What was read of one host: its standing, its facts, and its part of the fabric's plan."""

    standing: Standing
    facts: NodeFacts
    fabric: NodeFabric

    @property
    def profile(self) -> Profile:
        """Which kind of container it can run."""
        if not self.facts.gpu.gpus:
            return "cpu"
        return "nvidia-rdma" if any(port.chosen for port in self.fabric.hcas) else "nvidia-tcp"


@dataclass(frozen=True)
class Given:
    """What comes from the operator's side: files by node; ``origin`` is the cluster file's name in messages."""

    origin: str
    files: Mapping[str, tuple[PlannedFile, ...]] = field(default_factory=dict)


def plan_fleet(spec: ClusterSpec, seen: Mapping[str, Seen], given: Given) -> FleetPlan:
    """The plan.

    Raises:
        PreconditionFailed: hosts are not fit for it; all that is wrong is named.
        ConfigError: the file asks for what cannot be.
    """
    drafts = [_draft(spec, host, seen[host.name], given) for host in spec.hosts]
    _refuse(spec, drafts, seen, given)
    parallel = _parallel(spec, drafts, given)
    filled = [environment(spec, draft, drafts, parallel) for draft in drafts]
    return _whole(spec, filled, parallel, seen)


def _whole(spec: ClusterSpec, drafts: Sequence[Draft], parallel: Parallel, seen: Mapping[str, Seen]) -> FleetPlan:
    # What is started names its release's folder, so the release's name follows from all that comes before that.
    identity = [
        (draft.host.name, draft.root, draft.address, [file.model_dump() for file in draft.files], draft.settings,
         unit_digests(spec, draft))
        for draft in drafts
    ]  # fmt: skip
    digest = digest_of(spec.cluster, spec.runtime, spec.serving.api_key, identity)
    nodes = tuple(deployment(spec, draft, digest) for draft in drafts)
    head = next(draft for draft in drafts if draft.host.role == "head")
    notes = tuple(f"{name}: {note}" for name, one in seen.items() for note in one.fabric.notes)
    return FleetPlan(
        cluster=spec.cluster,
        runtime="process" if spec.runtime == "process" else "compose",
        digest=digest,
        image=spec.image if spec.runtime == "compose" else "",
        python=spec.python or "",
        model=spec.model.name,
        endpoint=f"http://{_bracketed(head.api_host)}:{spec.serving.port}/v1",
        serve_port=head.port("SHOAL_SERVE_PORT", 8701),
        agent_port=head.port("SHOAL_AGENT_PORT", 8700),
        parallel=f"tensor {parallel.tensor}, pipeline {parallel.pipeline}: {parallel.why}",
        nodes=nodes,
        notes=notes,
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _draft(spec: ClusterSpec, host: HostSpec, seen: Seen, given: Given) -> Draft:
    address, why = host.fabric, f"{given.origin}: fabric"
    if address == FOUND_BY_PLAN:
        found = fabric_address(seen.facts, seen.fabric)
        address, why = ("", found.why) if found.text == FOUND_BY_PLAN else (found.text, f"found {found.why}")
    gpus, gpus_why = _gpus(host, seen, given)
    return Draft(
        host=host,
        root=root_of(seen.standing.home, spec.cluster),
        address=address,
        address_why=why,
        gpus=gpus,
        gpus_why=gpus_why,
        files=given.files.get(host.name, ()),
        origin=given.origin,
        fabric=seen.fabric.settings,
        compose=seen.standing.docker.compose,
        api_host=_api_host(spec, address),
    )


def _api_host(spec: ClusterSpec, address: str) -> str:
    if spec.serving.host == "fabric":
        return address
    return "127.0.0.1" if spec.serving.host == "loopback" else spec.serving.host


def _gpus(host: HostSpec, seen: Seen, given: Given) -> tuple[int, str]:
    found = seen.facts.gpu.gpus or ()
    if isinstance(host.gpus, int):
        return host.gpus, f"{given.origin}: gpus"
    if not found:
        return 1, "no GPU was seen: one rank on the CPU, which Ray counts as a GPU"
    return len(found), ", ".join(sorted({gpu.name for gpu in found}))


def _parallel(spec: ClusterSpec, drafts: Sequence[Draft], given: Given) -> Parallel:
    gpus = [draft.gpus for draft in drafts if draft.gpus]
    if not gpus:
        raise ConfigError("no host offers a GPU", fix=f"write `gpus:` of a host in {given.origin}")
    try:
        found = over_gpus(gpus, spec.model.tensor_parallel, spec.model.pipeline_parallel)
    except ConfigError as error:
        what = re.sub(r"SHOAL_EXPECT names", "the hosts have", error.what)
        raise ConfigError(
            _named(what), fix=f"correct tensor-parallel or pipeline-parallel of the model in {given.origin}"
        ) from error
    return Parallel(found.tensor, found.pipeline, _named(found.why))


def _named(words: str) -> str:
    return words.replace("SHOAL_TENSOR_PARALLEL", "tensor-parallel").replace(
        "SHOAL_PIPELINE_PARALLEL", "pipeline-parallel"
    )


def _refuse(spec: ClusterSpec, drafts: Sequence[Draft], seen: Mapping[str, Seen], given: Given) -> None:
    problems = [*_addresses(drafts, seen), *_machines(seen)]
    problems += [problem for draft in drafts for problem in _unfit(spec, draft, seen[draft.host.name])]
    if problems:
        raise PreconditionFailed(
            "\n".join(problem.what for problem in problems),
            why=f"nothing was changed on the {len(drafts)} host(s) of {given.origin}",
            fix="\n     ".join(dict.fromkeys(problem.fix for problem in problems)),
        )


def _addresses(drafts: Sequence[Draft], seen: Mapping[str, Seen]) -> Iterator[ShoalError]:
    """Fabric addresses that a host does not have, or that two have."""
    users: dict[str, str] = {}
    for draft in drafts:
        name, address = draft.host.name, draft.address
        if not address:
            yield ShoalError(f"{name}: {draft.address_why}", fix=f"write `fabric: ADDRESS` of {name} in {draft.origin}")
            continue
        if other := users.get(address):
            yield ShoalError(f"{name} and {other} have the fabric address {address}", fix=f"correct {draft.origin}")
        users[address] = name
        net = seen[name].facts.net
        if net.netdevs is None or net.holding(address):
            continue
        others = [other for other, one in seen.items() if other != name and one.facts.net.holding(address)]
        own = [item.ip for dev in net.netdevs for item in dev.ipv4 if dev.kind != "loopback"]
        whose = f"; it is {others[0]}'s" if others else ""
        yield ShoalError(
            f"{name} does not have the fabric address {address}{whose}; it has {', '.join(own) or 'none'}",
            fix=f"correct `fabric` of {name} in {draft.origin}",
        )


def _machines(seen: Mapping[str, Seen]) -> Iterator[ShoalError]:
    kinds: dict[str, list[str]] = {}
    for name, one in seen.items():
        kinds.setdefault(one.standing.architecture, []).append(name)
    if len(kinds) > 1:
        told = "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items())
        yield ShoalError(
            f"the hosts are of different architectures ({told})", fix="make a cluster of hosts of one architecture"
        )


def _unfit(spec: ClusterSpec, draft: Draft, seen: Seen) -> Iterator[ShoalError]:
    name, standing = draft.host.name, seen.standing
    if not standing.writable:
        yield ShoalError(
            f"{name}: {standing.user} may not write in {standing.place}",
            fix=f"ssh {draft.ssh} ls -ld {standing.place}   # or name another user in {draft.origin}",
        )
    need = 4 * sum(len(file.text or "") or 2 << 20 for file in draft.files) + (16 << 20)
    if standing.free < need:
        yield ShoalError(
            f"{name}: {standing.place} has {standing.free >> 20} MiB of room, and {need >> 20} MiB are needed",
            fix=f"ssh {draft.ssh} df -h {standing.place}",
        )
    if spec.runtime == "compose":
        yield from _docker(name, draft, seen)
    elif spec.runtime == "process":
        yield from _python(name, spec, draft, seen)


def _docker(name: str, draft: Draft, seen: Seen) -> Iterator[ShoalError]:
    docker = seen.standing.docker
    if docker.error:
        said = docker.error[0]
        fix = f"ssh {draft.ssh} sudo usermod -aG docker {seen.standing.user}"
        if "ermission denied" not in said:
            fix = f"ssh {draft.ssh} sudo apt install docker.io docker-compose-v2   # or: sudo systemctl start docker"
        yield ShoalError(f"{name}: Docker does not answer: {said}", fix=fix)
    elif not docker.compose:
        yield ShoalError(f"{name}: Docker has no Compose", fix=f"ssh {draft.ssh} sudo apt install docker-compose-v2")


def _python(name: str, spec: ClusterSpec, draft: Draft, seen: Seen) -> Iterator[ShoalError]:
    found = seen.standing.versions
    if found.error:
        yield ShoalError(
            f"{name}: {spec.python} does not run: {found.error}", fix=f"correct `python:` in {draft.origin}"
        )
        return
    if found.vllm is None:
        yield ShoalError(
            f"{name}: {spec.python} has no vLLM",
            fix=f"ssh {draft.ssh} {spec.python} -m pip install vllm ray",
        )
