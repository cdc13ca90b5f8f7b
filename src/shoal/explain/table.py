"""All signatures, in the order in which they are tried."""

from shoal.explain.signature import Pattern, Role, Signature, words
from shoal.explain.table_benign import BENIGNS, LIFE
from shoal.explain.table_container import CONTAINER
from shoal.explain.table_cuda import CUDA, KERNEL
from shoal.explain.table_nccl import NCCL, WARNING
from shoal.explain.table_nccl_ib import NCCL_IB
from shoal.explain.table_ray import RAY
from shoal.explain.table_reports import REPORTS
from shoal.explain.table_torch import GLOO, TORCH
from shoal.explain.table_vllm import VLLM

# Found where no other signature fits: explain/errors.py tells an error line from code and warnings.
OTHER = Signature(
    "other.error",
    Role.SUSPECT,
    tuple(map(words, ("Error: ", "Exception: ", "Exit: ", "Interrupt: "))),
    "{told}",
    "read the lines around it",
    "",
    "any Python program",
)
LINES: tuple[Signature, ...] = (
    *BENIGNS,
    *LIFE,
    *NCCL_IB,
    *NCCL,
    *VLLM,
    *CUDA,
    *RAY,
    *GLOO,
    *TORCH,
    *KERNEL,
    *CONTAINER,
    WARNING,
    OTHER,
)
REPORT = {signature.id: signature for signature in REPORTS}
ALL: dict[str, Signature] = {signature.id: signature for signature in (*LINES, *REPORTS)}


def _consequences() -> tuple[Pattern, ...]:
    chosen = (signature for signature in LINES if signature.role in {Role.CASCADE, Role.ECHO})
    return tuple(pattern for signature in chosen for pattern in signature.patterns)


CONSEQUENCES = _consequences()


def is_consequence(text: str) -> bool:
    """Whether an error's words only report that something else failed."""
    line = text.encode("utf-8", errors="replace")
    return any(pattern.search(line) is not None for pattern in CONSEQUENCES)
