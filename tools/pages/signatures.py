"""The page of signatures: every line that ``shoal explain`` knows."""

from collections.abc import Iterable

from pages.markdown import code, page, table
from shoal.explain.signature import Role, Signature
from shoal.explain.table import ALL

ROLES = {
    Role.CAUSE: "names what is wrong",
    Role.SUSPECT: "an error that can be the cause, and can follow from the end of a peer",
    Role.SLOW: "it works, and not as fast as the machines can",
    Role.SYMPTOM: "something did not go on; why stands elsewhere",
    Role.CASCADE: "a consequence of the end of another process; never taken for a cause",
    Role.ECHO: "a consequence that is also met where nothing is wrong; never shown",
    Role.NOTE: "worth knowing, nothing is wrong by it",
    Role.BENIGN: "looks bad, and is normal",
    Role.ALIVE: "a sign of health: errors before it were survived",
    Role.STEP: "a start that goes on: what was waited for before came",
    Role.STOP: "someone asked for the end: what follows is its noise",
}
AREAS = {
    "nccl": "NCCL",
    "gloo": "Gloo",
    "torch": "torch",
    "cuda": "CUDA",
    "kernel": "Kernel",
    "ray": "Ray",
    "vllm": "vLLM",
    "container": "Containers",
    "host": "Host",
    "benign": "Normal, though it looks bad",
    "life": "Signs of health, and of an ordered end",
    "python": "Python",
    "other": "Everything else",
}


class _General(dict[str, str]):
    """A sentence without values: variables of the environment are left out, what a line names is in capitals."""

    def __missing__(self, name: str) -> str:
        return "" if name.startswith("NCCL_") else name.upper()


def general(text: str) -> str:
    """A signature's sentence as it reads for any log."""
    return text.format_map(_General())


def signatures() -> str:
    """All signatures, by whose line they are."""
    missing = {signature.area for signature in ALL.values()} - AREAS.keys()
    if missing:
        raise RuntimeError(f"no title for the area {missing}")
    parts = [
        f"`shoal explain` knows {len(ALL)} signatures. How to use it: [explain a log](../how-to/explain-a-log.md).\n",
        table(["role", "meaning"], ((code(role), text) for role, text in ROLES.items())),
        "*Check* is the check of the doctor that would confirm it.\n",
    ]
    for area, title in AREAS.items():
        chosen = [signature for signature in ALL.values() if signature.area == area]
        parts += [f"## {title}\n", _table(chosen)]
    return page("Signatures", *parts)


def _table(chosen: Iterable[Signature]) -> str:
    rows = (
        [
            code(one.id),
            code(one.role),
            general(one.cause),
            general(one.fix),
            code(one.confirm),
            one.source,
        ]
        for one in chosen
    )
    return table(["signature", "role", "meaning", "fix", "check", "source"], rows)
