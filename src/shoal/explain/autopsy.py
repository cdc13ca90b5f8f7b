"""A stuck engine on one page: where its ranks stand, what NCCL said last, and who keeps the others waiting. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A head of agent/evidence.py, then a stack as py-spy or the kernel writes it.
HEAD = re.compile(r"^== pid (\d+) (.*)$")
THREAD = re.compile(r'^Thread .*"MainThread"')
RANKS = re.compile(r"ray::\w*Worker|VLLM::Worker|SIMULATED::")
# Where a rank waits for others. Words of torch.distributed, vLLM's device communicators, and NCCL.
COLLECTIVE = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|broadcast|barrier|all_?to_?all|nccl|send_tensor_dict|recv_tensor_dict|"
    r"\b(irecv|isend|recv|send)\b",
    re.IGNORECASE,
)
# Where a rank waits for work: nothing keeps it, and it keeps nobody.
IDLE = re.compile(r"dequeue|acquire_read|wait_for_work|shm_broadcast", re.IGNORECASE)
SHOWN = 12


@dataclass(frozen=True)
class Stand:
    """Where one process stands: the frames of its main thread, the innermost first; no frames where nothing told."""

    node: str
    pid: int
    title: str
    frames: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """How it is called."""
        return f"{self.title or 'process'} (pid {self.pid}, {self.node})"

    @property
    def is_rank(self) -> bool:
        """Whether it is a rank of the engine, and not something that a rank started."""
        return bool(RANKS.search(self.title))

    @property
    def waits(self) -> str:
        """``collective``, ``work``, or empty where it does something else."""
        for frame in self.frames:
            if IDLE.search(frame):
                return "work"
            if COLLECTIVE.search(frame):
                return "collective"
        return ""


def stands(node: str, text: str) -> tuple[Stand, ...]:
    """The processes in the stacks that an agent tells."""
    out: list[Stand] = []
    parts = re.split(r"(?m)^(?=== pid \d)", text)
    for part in parts:
        first, _, body = part.partition("\n")
        if found := HEAD.match(first):
            out.append(Stand(node, int(found[1]), found[2].strip(), _frames(body), body.strip()))
    return tuple(out)


def _frames(body: str) -> tuple[str, ...]:
    """The frames of the main thread in py-spy's words."""
    lines = body.splitlines()
    at = next((number for number, line in enumerate(lines) if THREAD.match(line)), None)
    if at is None:
        return ()
    out = []
    for line in lines[at + 1 :]:
        if not line.startswith("    "):
            break
        out.append(line.strip())
    return tuple(out)


def lagging(found: Sequence[Stand]) -> str:
    """Which rank keeps the others waiting, in one sentence; what would tell where that cannot be said."""
    ranks = [stand for stand in found if stand.is_rank]
    told = [stand for stand in ranks if stand.frames]
    if not ranks:
        return "no rank of the engine runs on any node"
    if not told:
        return "no rank's stack can be read; py-spy (pip install py-spy) with the capability SYS_PTRACE would tell"
    waiting = [stand for stand in told if stand.waits == "collective"]
    others = [stand for stand in told if stand.waits != "collective"]
    if waiting and others:
        names = "; ".join(f"{stand.name} is in {stand.frames[0]}" for stand in others)
        return f"{len(waiting)} of {len(told)} ranks wait in a collective, and {names}"
    if waiting:
        return f"all ranks ({len(told)}) wait in a collective: the network, or a rank that has ended, keeps them"
    if all(stand.waits == "work" for stand in told):
        return f"all ranks ({len(told)}) wait for work: what hangs is before them, in the engine core or the API server"
    tops: dict[str, list[str]] = {}
    for stand in told:
        tops.setdefault(stand.frames[0], []).append(stand.name)
    return "no rank waits in a collective: " + "; ".join(f"{', '.join(names)} in {top}" for top, names in tops.items())


@dataclass(frozen=True)
class Said:
    """The last that one process's NCCL said."""

    node: str
    name: str
    transport: str
    quiet_s: float | None
    last: str


def quietest(said: Sequence[Said]) -> str:
    """Which process's NCCL has been silent for longest, where that tells them apart."""
    timed = [(one.quiet_s, one) for one in said if one.quiet_s is not None]
    if len(timed) < 2:
        return ""
    longest, one = max(timed, key=lambda pair: pair[0])
    if longest - min(seconds for seconds, _ in timed) < 5:
        return ""
    return f"NCCL of {one.name} on {one.node} wrote last, {longest:.0f} s ago, the longest of all"


# RAS, NCCL's own report, of ranks that are at different operations.
LAUNCHED = re.compile(r"^\s*Rank (\d+) has launched up to operation (\d+)", re.MULTILINE)


def behind(ras: str) -> str:
    """Which rank has launched fewer operations than the others, by NCCL's own report; empty where it names none."""
    launched = {rank: int(number) for rank, number in LAUNCHED.findall(ras)}
    if len(set(launched.values())) < 2:
        return ""
    words = ", ".join(f"rank {rank} at {number}" for rank, number in sorted(launched.items(), key=lambda one: one[1]))
    return f"NCCL's own report: ranks have launched different numbers of operations: {words}"


def page(
    title: str,
    engine: str,
    stacks: Mapping[str, str],
    said: Sequence[Said],
    missing: Mapping[str, str],
    ras: str = "",
) -> str:
    """The page, as Markdown. ``stacks`` are texts by node, ``missing`` the reasons of nodes that told none."""
    found = [stand for node, text in stacks.items() for stand in stands(node, text)]
    words = [
        lagging(found),
        behind(ras),
        quietest(said),
        *(f"{node} told nothing: {why}" for node, why in missing.items()),
    ]
    parts = [f"# {title}", engine, *(f"- {word}" for word in words if word), "## NCCL", *_said(said)]
    parts += [*(["## NCCL's own report (RAS)", f"```text\n{ras.strip()}\n```"] if ras else []), "## Stacks"]
    for stand in found:
        shown = stand.frames[:SHOWN] or tuple(stand.text.splitlines()[:SHOWN])
        parts += [f"### {stand.name}", "```text\n" + "\n".join(shown) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _said(said: Sequence[Said]) -> list[str]:
    if not said:
        return ["NCCL has written no file on any node."]
    return [
        f"- {one.name} on {one.node}: {one.transport or 'no network yet'}, "
        f"{'?' if one.quiet_s is None else f'{one.quiet_s:.0f}'} s ago: `{one.last}`"
        for one in said
    ]
