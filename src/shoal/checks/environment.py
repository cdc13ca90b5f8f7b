"""Group ``env``: the environment of a node's processes, by the rules of ``shoal env check``.

Each check is one of those rules, or a part of one: what is wrong with a value is written once, in ``env_nccl`` and
``env_check``.
"""

from collections.abc import Callable, Iterable

from shoal.checks import env_check, env_nccl
from shoal.checks.base import Check, Scope, Severity, Status, Verdict, ok, skip, unknown
from shoal.checks.env_remarks import Remark, Remarks, Settings
from shoal.checks.env_remarks import Severity as Weight
from shoal.facts.node import NodeFacts
from shoal.log import MASK, is_secret
from shoal.nccl.variables import NOT_NCCL, VARIABLES, parse_version
from shoal.spec.dotenv import Dotenv, Entry

Rule = Callable[[Settings], Remarks]
Kept = Callable[[Remark], bool]
STATUS = {Weight.FAIL: Status.FAIL, Weight.WARN: Status.WARN, Weight.INFO: Status.OK}


def settings(facts: NodeFacts) -> Settings | None:
    """The environment as the rules of ``shoal env check`` take it; None where nobody read it."""
    if facts.env is None:
        return None
    entries = tuple(Entry(name, value, 0, value) for name, value in sorted(facts.env.items()))
    role = env_check.role_of(facts.env.get("RAY_MODE", ""))
    return Settings(Dotenv(entries), role, parse_version(facts.stack.nccl or ""))


def verdict(remarks: Iterable[Remark]) -> Verdict:
    """Remarks as one judgement: the worst counts, with the words of all of that weight."""
    found = sorted(remarks, key=lambda item: list(Weight).index(item.severity))
    if not found:
        return ok()
    weight = found[0].severity
    same = [item for item in found if item.severity is weight]
    evidence = "; ".join(f"{item.variable}={item.value}: {item.what}" for item in same)
    return STATUS[weight], evidence, "; ".join(dict.fromkeys(item.fix for item in same if item.fix))


def _check(
    name: str,
    title: str,
    about: str,
    rule: Rule,
    *names: str,
    keep: Kept | None = None,
    severity: Severity = Severity.WARNING,
) -> Check[NodeFacts]:
    """A rule as a check. ``names`` begin the variables that it is about: without any of them it does not apply."""

    def judge(facts: NodeFacts) -> Verdict:
        known = settings(facts)
        if known is None:
            return unknown("the environment was not read: env")
        set_here = [item for item in known.entries if item.startswith(names) and known.get(item)]
        if not set_here:
            return skip(f"not set: {', '.join(names)}")
        status, evidence, fix = verdict(item for item in rule(known) if keep is None or keep(item))
        shown = ", ".join(f"{item}={MASK if is_secret(item) else known.get(item)}" for item in set_here[:4])
        return status, evidence or shown, fix

    return Check(name, title, judge, severity, Scope.ENVIRONMENT, ("env", "stack"), about)


def _of(name: str) -> Kept:
    return lambda remark: remark.variable == name


def _typo(remark: Remark) -> bool:
    return remark.variable not in VARIABLES and remark.variable not in NOT_NCCL


CHECKS: tuple[Check[NodeFacts], ...] = (
    _check(
        "env.nccl-names", "every NCCL_* name is one that NCCL has",
        "NCCL reads what it knows and passes over the rest: a misspelt variable has no effect, and nobody says so.",
        env_nccl.names, "NCCL_", keep=_typo, severity=Severity.ERROR,
    ),
    _check(
        "env.nccl-version", "every NCCL_* name is one that this NCCL has",
        "A variable of a newer or an older NCCL has no effect in this one, and nobody says so.",
        env_nccl.names, "NCCL_", keep=lambda remark: remark.variable in VARIABLES,
    ),
    _check(
        "env.foreign-names", "no variable only looks like NCCL's",
        "NCCL_TIMEOUT and some others were invented, or are torch's under another name. They have no effect.",
        env_nccl.names, "NCCL_", keep=lambda remark: remark.variable in NOT_NCCL,
    ),
    _check(
        "env.nccl-integers", "NCCL's numbers are numbers, and in range",
        "NCCL reads a number as C does: `NCCL_IB_DISABLE=true` is 0, which is the opposite of what was meant.",
        env_nccl.integers, "NCCL_", severity=Severity.ERROR,
    ),
    _check(
        "env.nccl-words", "NCCL knows the words it is given",
        "A word that NCCL does not know is passed over, and the default holds.",
        env_nccl.enums, "NCCL_", severity=Severity.ERROR,
    ),
    _check(
        "env.hca-list", "the list of HCAs is written as NCCL reads it",
        "`^` stands before `=`, names are RDMA devices, and no address is a name.",
        env_nccl.devices, "NCCL_IB_HCA",
        keep=lambda remark: remark.variable == "NCCL_IB_HCA" and remark.severity is Weight.FAIL,
        severity=Severity.ERROR,
    ),
    _check(
        "env.hca-prefix", "names of HCAs mean one device each",
        "Names match by their beginning: mlx5_1 is also mlx5_10 to mlx5_19. `=` in front asks for whole names.",
        env_nccl.devices, "NCCL_IB_HCA",
        keep=lambda remark: remark.variable == "NCCL_IB_HCA" and remark.severity is Weight.WARN,
    ),
    _check(
        "env.interface-list", "the list of interfaces is written as NCCL reads it",
        "NCCL_SOCKET_IFNAME holds names of interfaces: no address, and no RDMA device.",
        env_nccl.devices, "NCCL_SOCKET_IFNAME", keep=_of("NCCL_SOCKET_IFNAME"), severity=Severity.ERROR,
    ),
    _check(
        "env.gid-index", "no GID index is pinned",
        "Slots of the GID table differ between nodes and move when addresses change. NCCL 2.21 and newer look for the "
        "right one by themselves; a pinned index is used unseen.",
        env_nccl.gid_index, "NCCL_IB_GID_INDEX",
    ),
    _check(
        "env.traffic-class", "the traffic class asks for congestion marks",
        "NCCL_IB_TC is DSCP times four plus the ECN bits. With ECN bits 00 a switch drops what it could have marked.",
        env_nccl.traffic_class, "NCCL_IB_TC",
    ),
    _check(
        "env.service-level", "the service level has an effect",
        "On RoCE NCCL_IB_SL becomes the 802.1p priority, which only a packet with a VLAN tag carries.",
        env_nccl.service_level, "NCCL_IB_SL",
    ),
    _check(
        "env.ib-timeout", "NCCL's patience is not less than its own",
        "NCCL_IB_TIMEOUT below the default ends a job at a short trouble of the link, with status 12.",
        env_nccl.timeout, "NCCL_IB_TIMEOUT",
    ),
    _check(
        "env.contradictions", "no setting is switched off by another",
        "NCCL_IB_DISABLE=1 beside settings for RDMA, or NCCL_NET=Socket: the rest has no effect.",
        env_nccl.contradictions, "NCCL_IB_DISABLE", "NCCL_NET",
    ),
    _check(
        "env.leftovers", "no setting for fault-finding is left behind",
        "P2P, shared memory or GPUDirect switched off, a forced algorithm, or somebody else's topology file: good for "
        "finding a fault, slow ever after.",
        env_nccl.leftovers, *env_nccl.LEFTOVERS,
    ),
    _check(
        "env.plain-names", "Gloo, UCX and TensorPipe get plain names",
        "`=` and `^` are NCCL's signs. Gloo looks for an interface that is called so, and finds none.",
        env_check.plain_names, *env_check.PLAIN, severity=Severity.ERROR,
    ),
    _check(
        "env.cuda-visible", "the list of visible GPUs is one",
        "An empty CUDA_VISIBLE_DEVICES hides every GPU; CUDA stops reading at the first word that it does not know.",
        env_check.gpus, "CUDA_VISIBLE_DEVICES", severity=Severity.ERROR,
    ),
    _check(
        "env.quotes", "values hold no quotes or comments",
        "`docker run --env-file` and systemd keep what Compose takes away: quotes, blanks, and comments after a value.",
        env_check.entries, "NCCL_", "VLLM_", "RAY_", "SHOAL_", "GLOO_", "UCX_",
    ),
    _check(
        "env.names", "nothing is misspelt",
        "shoal refuses a SHOAL_* name that it does not know. Others pass over a misspelt name in silence.",
        env_check.names, "SHOAL_", "RAY_", "VLLM_", "GLOO_", "UCX_", "HF_", "CUDA_",
    ),
    _check(
        "env.values", "values fit their variables",
        "An address, a port, a number or a switch of another form is refused at the start.",
        env_check.values, "SHOAL_", "RAY_", "VLLM_", "GLOO_", "UCX_", "HF_", severity=Severity.ERROR,
    ),
    _check(
        "env.node", "the node knows its role, its address and its head",
        "A worker needs RAY_MODE, VLLM_HOST_IP and RAY_ADDRESS, and the last must not be itself.",
        env_check.node, "RAY_MODE", severity=Severity.ERROR,
    ),
    _check(
        "env.worker-variables", "what Ray's workers are to have is set",
        "VLLM_RAY_WORKER_ENV_VARS names variables that every worker gets from its own node.",
        env_check.worker_variables, "VLLM_RAY_WORKER_ENV_VARS",
    ),
)  # fmt: skip
