"""Judgements over what a rank reported as a whole: why its traffic is slower than the machines allow. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from shoal.explain.story import Hit
from shoal.nccl.rank import Rank, is_rdma

OFF = {"", "0"}


@dataclass(frozen=True)
class Report:
    """One judgement over a rank, with the lines that show it."""

    rank: Rank
    id: str
    names: tuple[str, ...]  # keys of rank.where: its evidence
    values: dict[str, str] = field(default_factory=dict)


def reports(ranks: Iterable[Rank], hits: Mapping[str, Hit]) -> Iterator[Report]:
    """All judgements over these ranks of one source; ``hits`` are the known lines of that source."""
    for rank in ranks:
        for judge in (_sockets, _shared_memory, _plugin, _gpudirect):
            yield from judge(rank, hits)


def _on(rank: Rank, name: str) -> bool:
    return rank.env.get(name, "") not in OFF


def _sockets(rank: Rank, hits: Mapping[str, Hit]) -> Iterator[Report]:
    """Traffic that goes through sockets, and every reason for it; the first reason weighs most."""
    net = next((name for name in rank.net_channels if not is_rdma(name.partition("/")[2])), "")
    wanted = rank.network == "Socket" and not rank.channels and (rank.nodes > 1 or _asked_for_rdma(rank))
    forced = _on(rank, "NCCL_P2P_DISABLE") and _on(rank, "NCCL_SHM_DISABLE")
    if forced and not net and rank.net_channels:
        net = next(iter(rank.net_channels))
        yield Report(rank, "nccl.p2p-shm-disabled-by-env", ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", net), {"net": net})
        return
    if not net and not wanted:
        return
    show = (net or "network",)
    ids = [(id_, names) for id_, fits, names in REASONS if fits(rank, hits)]
    if forced and rank.net_channels:
        ids.insert(len([id_ for id_, _ in ids if id_ == "nccl.ib-hca-no-match"]), FORCED)
    if not ids or (len(ids) == 1 and ids[0] == FORCED and rank.nodes > 1 and rank.local_ranks > 1):
        ids.append(("nccl.over-sockets", ("network",)))
    for id_, names in ids:
        yield Report(rank, id_, (*names, *show), {"net": net or "NET/Socket"})


FORCED = ("nccl.p2p-shm-disabled-by-env", ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE"))


def _asked_for_rdma(rank: Rank) -> bool:
    return bool(rank.env.get("NCCL_IB_HCA")) and rank.no_device


Fits = Callable[[Rank, Mapping[str, Hit]], bool]
REASONS: tuple[tuple[str, Fits, tuple[str, ...]], ...] = (
    ("nccl.ib-disabled-by-env", lambda rank, _: _on(rank, "NCCL_IB_DISABLE"), ("NCCL_IB_DISABLE",)),
    ("nccl.socket-forced", lambda rank, _: rank.env.get("NCCL_NET", "").lower() == "socket", ("NCCL_NET",)),
    (
        "nccl.libibverbs-missing",
        lambda _, hits: "benign.libibverbs" in hits and "libibverbs" in hits["benign.libibverbs"].text,
        (),
    ),
    ("nccl.ib-hca-no-match", lambda rank, _: _asked_for_rdma(rank), ("NCCL_IB_HCA", "no device")),
    (
        "nccl.no-rdma-device",
        lambda rank, _: rank.no_device and not _asked_for_rdma(rank),
        ("no device",),
    ),
)


def _shared_memory(rank: Rank, hits: Mapping[str, Hit]) -> Iterator[Report]:
    del hits
    if "SHM" not in rank.channels:
        return
    if _on(rank, "NCCL_P2P_DISABLE"):
        value = f"NCCL_P2P_DISABLE={rank.env['NCCL_P2P_DISABLE']}"
        yield Report(rank, "nccl.p2p-disabled-by-env", ("NCCL_P2P_DISABLE", "SHM"), {"variable": value})
    elif rank.env.get("NCCL_P2P_LEVEL", "").upper() in {"LOC", "0"}:
        value = f"NCCL_P2P_LEVEL={rank.env['NCCL_P2P_LEVEL']}"
        yield Report(rank, "nccl.p2p-disabled-by-env", ("NCCL_P2P_LEVEL", "SHM"), {"variable": value})


def _plugin(rank: Rank, hits: Mapping[str, Hit]) -> Iterator[Report]:
    del hits
    asked = rank.env.get("NCCL_NET_PLUGIN", "")
    if asked and asked != "none" and rank.plugin_missing and not rank.plugin:
        yield Report(rank, "nccl.plugin-missing", ("NCCL_NET_PLUGIN", "plugin missing"), {"plugin": asked})


def _gpudirect(rank: Rank, hits: Mapping[str, Hit]) -> Iterator[Report]:
    del hits
    if not rank.rdma or rank.gdr is not False:
        return
    told = [hca.gdr for hca in rank.hcas.values() if hca.gdr is not None]
    if told and not any(told):
        yield Report(rank, "nccl.gdr-disabled", ("gdr",))
    elif any(told) and rank.net_channels:
        yield Report(rank, "nccl.gdr-too-far", ("gdr", "gdr distance", next(iter(rank.net_channels))))


def differences(ranks: Iterable[Rank]) -> Iterator[Report]:
    """What ranks of one communicator have to have in common, and have not."""
    groups: dict[str, list[Rank]] = defaultdict(list)
    for rank in ranks:
        if rank.comm:
            groups[rank.comm].append(rank)
    for group in groups.values():
        for id_, key, told in (
            ("nccl.versions-differ", "version", attrgetter("version")),
            ("nccl.networks-differ", "network", attrgetter("network")),
        ):
            words = {told(rank): rank for rank in reversed(group) if told(rank)}
            if len(words) > 1:
                text = ", ".join(f"{rank.name}: {word}" for word, rank in sorted(words.items()))
                yield Report(group[0], id_, (key,), {"told": text})
