"""The decision: what happened, in one sentence, on which line, and what mends it. First the cause, then its effects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from shoal.explain.signature import Role, Signature
from shoal.explain.story import Hit, Story
from shoal.explain.table import OTHER, REPORT
from shoal.explain.table_nccl import WARNING
from shoal.explain.transports import Report, differences, reports
from shoal.nccl.log import shown
from shoal.nccl.rank import Rank

MOST_EVIDENCE = 12


@dataclass(frozen=True)
class Evidence:
    """One line that shows something."""

    source: str
    line: int
    text: str
    signature: str
    role: Role
    says: str
    speaker: str = ""
    count: int = 1


@dataclass(frozen=True)
class Benign:
    """Lines that look bad and are not."""

    signature: str
    says: str
    source: str
    line: int
    count: int


@dataclass(frozen=True)
class Explanation:
    """What a set of logs says. ``status``: failed, degraded, ok or empty."""

    status: str
    verdict: str
    root_cause: str | None
    confidence: str
    fix: str = ""
    confirm: str = ""
    evidence: tuple[Evidence, ...] = ()
    ranks: tuple[Rank, ...] = ()
    benign: tuple[Benign, ...] = ()
    lines: int = 0


class _Values(dict[str, str]):
    """Values for a sentence: a variable of the environment shows as "=value", what is not known as nothing."""

    def __missing__(self, name: str) -> str:
        return ""


@dataclass
class _Finding:
    """A hit or a report, with its sentence made."""

    signature: Signature
    says: str
    fix: str
    evidence: list[Evidence] = field(default_factory=list)


def explain(stories: Sequence[Story]) -> Explanation:
    """The verdict over all sources of one incident."""
    ranks = [rank for story in stories for rank in story.reader.ranks.values()]
    lines = sum(story.lines for story in stories)
    judged = [
        *(_judged(report) for report in differences(ranks)),
        *(_judged(report) for story in stories for report in reports(story.reader.ranks.values(), story.hits)),
    ]
    found = _found(stories, ranks)
    root = _root(stories, ranks) or next((one for one in judged if one.signature.role is Role.CAUSE), None)
    slow = [one for one in judged if one.signature.role is Role.SLOW]
    others = [*(one for one in judged if one is not root), *(one for one in found if one is not root)]
    if root:
        return _explanation("failed", root, others, stories, ranks, lines)
    if trouble := _trouble(stories, ranks):
        return _without_cause(trouble, others, stories, ranks, lines)
    slow += [one for one in found if one.signature.role is Role.SLOW]
    if slow:
        return _explanation("degraded", slow[0], others, stories, ranks, lines)
    status = "ok" if lines else "empty"
    sure = any(rank.complete for rank in ranks) or any(story.last(Role.ALIVE) for story in stories)
    notes = [line for one in others if one.signature.role is Role.NOTE for line in one.evidence]
    return Explanation(
        status,
        _fine(ranks, lines, notes),
        None,
        "high" if sure else "low",
        evidence=tuple(notes[:MOST_EVIDENCE]),
        ranks=tuple(ranks),
        benign=_benign(stories),
        lines=lines,
    )


def _found(stories: Sequence[Story], ranks: Sequence[Rank]) -> list[_Finding]:
    """Every known line that matters, in the order of sources and lines."""
    silent = {Role.BENIGN, Role.ALIVE, Role.STEP, Role.STOP, Role.ECHO}
    hits = (hit for story in stories for hit in sorted(story.hits.values(), key=lambda hit: hit.line))
    return [_told(hit, ranks) for hit in hits if hit.signature.role not in silent and not _survived(hit, stories)]


def _told(hit: Hit, ranks: Sequence[Rank]) -> _Finding:
    """A hit with its sentence, filled from the line and from the environment of the rank that said it."""
    own = [rank for rank in ranks if rank.source == hit.source]
    own.sort(key=lambda rank: f"{rank.host}:{rank.pid}" != hit.speaker)
    values = _Values({name: f"={value}" for rank in reversed(own) for name, value in rank.env.items()})
    values.update(hit.groups)
    says = _sentence(hit.signature.cause, values)
    evidence = Evidence(
        hit.source, hit.line, hit.text, hit.signature.id, hit.signature.role, says, _named(hit, own), hit.count
    )
    return _Finding(hit.signature, says, _sentence(hit.signature.fix, values), [evidence])


def say(hit: Hit) -> tuple[str, str]:
    """What one known line means, and what mends it, by that line alone."""
    finding = _told(hit, ())
    return finding.says, finding.fix


def _named(hit: Hit, ranks: Sequence[Rank]) -> str:
    """The speaker, by rank where its process told one."""
    for rank in ranks:
        if f"{rank.host}:{rank.pid}" == hit.speaker:
            return rank.name
    return hit.speaker


def _sentence(text: str, values: _Values) -> str:
    return " ".join(text.format_map(values).split()).replace(" :", ":").replace(" ,", ",")


def _judged(report: Report) -> _Finding:
    signature, rank = REPORT[report.id], report.rank
    values = _Values({name: f"={value}" for name, value in rank.env.items()})
    values.update(report.values)
    says = _sentence(signature.cause, values)
    lines = [
        (number, shown(line)) for number, line in (rank.where[name] for name in report.names if name in rank.where)
    ]
    evidence = [
        Evidence(rank.source, number, text, signature.id, signature.role, says, rank.name)
        for number, text in dict.fromkeys(lines)
    ]
    return _Finding(signature, says, _sentence(signature.fix, values), evidence)


def _survived(hit: Hit, stories: Sequence[Story]) -> bool:
    """What passed: an error without a known cause before signs of health, a wait that ended, the noise of an end."""
    story = next(story for story in stories if story.source == hit.source)
    if hit.signature.passing:
        return hit.last < max(story.last(Role.ALIVE), story.last(Role.STEP))
    if hit.signature is not OTHER and hit.signature.role not in {Role.SYMPTOM, Role.CASCADE}:
        return False
    return hit.last < story.last(Role.ALIVE) or hit.line > story.first(Role.STOP)


def _root(stories: Sequence[Story], ranks: Sequence[Rank]) -> _Finding | None:
    """The first cause: in a source the earliest line; among sources the earliest time, if all tell it on one clock."""
    tiers = [_is_known_cause, _is_other, *([_is_warning] if _trouble(stories, ranks) else [])]
    for wanted in tiers:
        firsts = []
        for story in stories:
            hits = [hit for hit in story.hits.values() if wanted(hit, story) and not _survived(hit, stories)]
            if hits:
                firsts.append(min(hits, key=lambda hit: hit.line))
        if firsts:
            return _told(_earliest(firsts), ranks)
    return None


def _is_known_cause(hit: Hit, _: Story) -> bool:
    return hit.signature.role in {Role.CAUSE, Role.SUSPECT} and hit.signature is not OTHER


def _is_other(hit: Hit, _: Story) -> bool:
    return hit.signature is OTHER


def _is_warning(hit: Hit, story: Story) -> bool:
    """A warning that no signature knows, where it came before the consequences."""
    return hit.signature is WARNING and hit.line < story.first(Role.CASCADE)


def _earliest(hits: Sequence[Hit]) -> Hit:
    clocks = {hit.when.clock if hit.when else "" for hit in hits}
    certain = [hit for hit in hits if hit.signature.role is Role.CAUSE]
    if len(clocks) == 1 and "" not in clocks:
        return min(hits, key=lambda hit: (hit.when.second if hit.when else 0.0, hit.signature.role is not Role.CAUSE))
    return (certain or list(hits))[0]


def _trouble(stories: Sequence[Story], ranks: Sequence[Rank]) -> list[_Finding]:
    """Symptoms and consequences whose cause is not in these lines: symptoms first."""
    hits = [hit for story in stories for hit in story.hits.values() if not _survived(hit, stories)]
    symptoms = sorted((hit for hit in hits if hit.signature.role is Role.SYMPTOM), key=lambda hit: hit.line)
    cascades = sorted((hit for hit in hits if hit.signature.role is Role.CASCADE), key=lambda hit: hit.line)
    return [_told(hit, ranks) for hit in (*symptoms, *cascades)]


def _explanation(
    status: str,
    root: _Finding,
    others: Sequence[_Finding],
    stories: Sequence[Story],
    ranks: Sequence[Rank],
    lines: int,
) -> Explanation:
    evidence = [*root.evidence, *(line for one in others for line in one.evidence)]
    also = [
        one.says
        for one in others
        if one.signature.id != root.signature.id
        and (one.signature.id == "nccl.plugin-missing" or (status == "degraded" and one.signature.role is Role.SLOW))
    ]
    verdict = ". Also: ".join(dict.fromkeys((root.says, *also)))
    later = [story for story in stories for line in root.evidence[:1] if story.source == line.source]
    if status == "failed" and any(story.last(Role.ALIVE) > root.evidence[0].line for story in later):
        verdict += ". A later line shows the server answering"
    confidence = {Role.CAUSE: "high", Role.SLOW: "high"}.get(root.signature.role, "medium")
    return Explanation(
        status,
        verdict,
        root.signature.id,
        "low" if root.signature in {OTHER, WARNING} else confidence,
        root.fix,
        root.signature.confirm,
        tuple(dict.fromkeys(evidence))[:MOST_EVIDENCE],
        tuple(ranks),
        _benign(stories),
        lines,
    )


def _without_cause(
    trouble: Sequence[_Finding],
    others: Sequence[_Finding],
    stories: Sequence[Story],
    ranks: Sequence[Rank],
    lines: int,
) -> Explanation:
    first = trouble[0]
    kind = "Only consequences" if first.signature.role is Role.CASCADE else "Only a symptom"
    evidence = [line for one in (*trouble, *others) for line in one.evidence]
    return Explanation(
        "failed",
        f"{kind} of something else: {first.says}. The cause is not in these lines",
        None,
        "low",
        first.fix or "give the logs of all ranks at once: shoal explain FILE FILE ...",
        first.signature.confirm,
        tuple(dict.fromkeys(evidence))[:MOST_EVIDENCE],
        tuple(ranks),
        _benign(stories),
        lines,
    )


def _benign(stories: Iterable[Story]) -> tuple[Benign, ...]:
    """One entry for each kind, with where it stood first and how often it came."""
    found: dict[str, Benign] = {}
    for story in stories:
        for hit in sorted(story.hits.values(), key=lambda hit: hit.line):
            if hit.signature.role is Role.BENIGN:
                new = Benign(hit.signature.id, hit.signature.cause, hit.source, hit.line, hit.count)
                old = found.get(new.signature)
                found[new.signature] = replace(old, count=old.count + new.count) if old else new
    return tuple(found.values())


def _fine(ranks: Sequence[Rank], lines: int, notes: Sequence[Evidence]) -> str:
    if not lines:
        return "Nothing to explain: there are no lines"
    text = f"Nothing wrong found in {lines} lines"
    if ranks:
        text += f": {len(ranks)} NCCL process{'es' if len(ranks) > 1 else ''}, {paths(ranks)}"
    return f"{text}. Worth knowing: {notes[0].says}" if notes else text


def paths(ranks: Sequence[Rank]) -> str:
    """In words, what the ranks' traffic goes over."""
    used = dict.fromkeys(name for rank in ranks for name in rank.channels)
    if not used:
        networks = dict.fromkeys(rank.network for rank in ranks if rank.network)
        return f"network {', '.join(networks)}, no channels reported" if networks else "no channels reported"
    if any(rank.nvlink for rank in ranks) and "P2P" in used:
        used = {("P2P (NVLink)" if name == "P2P" else name): None for name in used}
    gdr = ", with GPUDirect RDMA" if any(rank.gdr for rank in ranks) else ""
    return f"traffic over {', '.join(used)}{gdr}"
