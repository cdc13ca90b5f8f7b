"""From a log to its cause: known lines, healthy logs without alarm, consequences never taken for causes."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nccl_logs import PREFIXES, VERSIONS, after, rank, spoken, text

from shoal.checks.catalogue import EVERY
from shoal.explain.match import KEYS
from shoal.explain.signature import Role, Signature
from shoal.explain.story import Story
from shoal.explain.table import ALL, LINES
from shoal.explain.verdict import Explanation, explain

DATA = Path(__file__).parent / "data"
PEER = "192.168.100.2<48123>"
GIDS = "localGid ::ffff:192.168.100.1 remoteGids::ffff:192.168.100.2"
FE80 = "localGid fe80::ba3f:d2ff:fe12:3456 remoteGids fe80::ba3f:d2ff:fe12:789a"


def told(*logs: bytes) -> Explanation:
    stories = []
    for number, log in enumerate(logs):
        story = Story(f"log{number}")
        story.read([log])
        stories.append(story)
    return explain(stories)


def completion(version: str, status: int, name: str, vendor: int, gids: str = GIDS) -> str:
    """A failed work request, as each version words it."""
    if not after(version, "2.20"):
        words = f"with error {status}, opcode 0, len 0, vendor err {vendor} (Send) {gids}"
        return f"WARN NET/IB : Got completion from peer {PEER} {words}"
    if not after(version, "2.28"):
        words = f"with status={status} opcode=0 len=0 vendor err {vendor} (Send) {gids}"
        colon = "NET/IB:" if after(version, "2.22") else "NET/IB :"
        return f"WARN {colon} Got completion from peer {PEER} {words} hca mlx5_0"
    words = (
        f"with status=IBV_WC_{name}({status}) opcode=IBV_WC_SEND(0) reqSize=0 vendor_err={vendor} req_type=Send {gids}"
    )
    return f"WARN NET/IB: Got completion from peer {PEER} {words} hca mlx5_0"


def ended(version: str, *lines: str) -> bytes:
    """A rank that came up over IB, said these lines, and was ended by torch."""
    torch = [
        (
            "[rank0]: torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/"
            "ProcessGroupNCCL.cpp:3135, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL 2.28"
        ),
        "[rank0]: ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
        "[rank0]:[E1123 01:54:39.22 ProcessGroupNCCL.cpp:1537] Process group watchdog thread terminated with exception",
    ]
    return text([*spoken([*rank(version), *lines], version), *torch])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("version", VERSIONS)
def test_healthy(version: str, prefix: str) -> None:
    """A rank over IB is fine in every version, behind every prefix."""
    result = told(text(spoken(rank(version), version), prefix))
    assert (result.status, result.root_cause, result.confidence) == ("ok", None, "high")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("status", "name", "vendor", "gids", "cause"),
    [
        (12, "RETRY_EXC_ERR", 129, GIDS, "nccl.ib-retry-exceeded"),
        (12, "RETRY_EXC_ERR", 129, FE80, "nccl.ib-link-local-gid"),
        (4, "LOC_PROT_ERR", 81, GIDS, "nccl.ib-gdr-broken"),
        (13, "RNR_RETRY_EXC_ERR", 135, GIDS, "nccl.ib-rnr"),
        (10, "REM_ACCESS_ERR", 136, GIDS, "nccl.ib-remote-error"),
        (1, "LOC_LEN_ERR", 105, GIDS, "nccl.ib-completion-error"),
    ],
)
def test_completions(version: str, status: int, name: str, vendor: int, gids: str, cause: str) -> None:
    """A failed work request is known by its status in all three spellings."""
    result = told(ended(version, completion(version, status, name, vendor, gids)))
    assert (result.status, result.root_cause) == ("failed", cause)


def test_a_flush_is_no_cause() -> None:
    """Of a failed request and the flush of the others, the failed one is the cause, in either order of lines."""
    flush = completion("2.28.9", 5, "WR_FLUSH_ERR", 249)
    retry = completion("2.28.9", 12, "RETRY_EXC_ERR", 129)
    assert told(ended("2.28.9", flush, retry)).root_cause == "nccl.ib-retry-exceeded"
    assert told(ended("2.28.9", flush)).root_cause is None


KNOWN = [tuple(row.split("\t", 1)) for row in (DATA / "known_lines.tsv").read_text(encoding="utf-8").splitlines()]
FATAL = {Role.CAUSE, Role.SUSPECT}


@pytest.mark.parametrize(("name", "line"), KNOWN)
def test_known_lines(name: str, line: str) -> None:
    """A known line is told by its signature, alone in a log and behind what a rank said before."""
    lines = spoken([line], "2.28.9") if line.startswith("WARN ") else [line]
    story = Story("log")
    story.read([text(lines)])
    assert list(story.hits) == [name]
    result = told(text([*spoken(rank("2.28.9"), "2.28.9"), *lines]))
    assert (result.root_cause, "{" in result.verdict + result.fix) == (
        name if ALL[name].role in FATAL | {Role.SLOW} else None,
        False,
    )


def test_no_key_has_a_digit() -> None:
    """Lines are remembered without their digits: so no literal that is looked for has one."""
    assert [key for key in KEYS if re.search(rb"\d", key)] == []


def test_what_differs_by_digits_only_is_told_apart() -> None:
    """A line that is known by a number is found after many of its like with other numbers."""
    ports = [f"INFO:     127.0.0.1:{number} - x" for number in range(50)]
    assert told(text([*ports, "Worker proc VllmWorker-0 died unexpectedly (exit code: -9)", *ports])).root_cause == (
        "vllm.worker-killed"
    )
    codes = [
        "Worker proc VllmWorker-0 died unexpectedly (exit code: 0)",
        "Worker proc V-1 died unexpectedly (exit code: -9)",
    ]
    assert told(text(codes)).root_cause == "vllm.worker-killed"


def test_every_signature_has_a_line() -> None:
    """No signature of a line is without an example."""
    assert sorted({one.id for one in LINES} - {name for name, _ in KNOWN}) == []


@pytest.mark.parametrize(("name", "line"), [(n, line) for n, line in KNOWN if n.startswith("nccl.")])
def test_the_cause_wins_over_what_torch_says(name: str, line: str) -> None:
    """What torch says of an error in NCCL is a symptom beside NCCL's own line."""
    if ALL[name].role in FATAL and line.startswith("WARN "):
        assert told(ended("2.28.9", line)).root_cause == name


CASCADES = [
    "WARN socketProgress: Connection closed by remote peer node2<40000>",
    "WARN socketProgressOpt: Call to recv from 10.0.0.2<40000> failed : Connection reset by peer",
    "misc/socket.cc:49 -> 6",
    "WARN [Service thread] Accept failed Resource temporarily unavailable",
    "WARN [Proxy Service 0] Failed to execute operation Connect from rank 0, retcode 6",
]
VLLM_CASCADES = [
    "(EngineCore pid=1) ERROR 11-23 06:13:17 [core.py:1510] EngineCore encountered a fatal error.",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above).",
    "ERROR 11-23 06:13:20 [ray_executor_v2.py:522] RayWorkerProc rank=[1] died unexpectedly, shutting down executor.",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
    "RuntimeError: [/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [10.0.0.2]:53142",
    "[rank1]: torch.distributed.DistBackendError: NCCL error: remote process exited, ncclRemoteError",
    "[rank1]:[W1123 01:54:39.2 TCPStore.cpp:138] [c10d] recvValueWithTimeout failed on SocketImpl(fd=52)",
    "BrokenPipeError: [Errno 32] Broken pipe",
]


@given(st.lists(st.sampled_from([*spoken(CASCADES, "2.28.9"), *VLLM_CASCADES]), max_size=12))
def test_consequences_are_no_cause(lines: list[str]) -> None:
    """Whatever consequences a log has, it has no cause by them."""
    assert told(text(lines)).root_cause is None


@given(
    st.lists(st.sampled_from([*spoken(CASCADES, "2.28.9"), *VLLM_CASCADES]), max_size=6),
    st.lists(st.sampled_from([*spoken(CASCADES, "2.28.9"), *VLLM_CASCADES]), max_size=6),
)
def test_a_cause_among_consequences(before: list[str], later: list[str]) -> None:
    """A cause is found wherever it stands among consequences, and in another file."""
    cause = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a capacity of 79 GiB"
    assert told(text([*before, cause, *later])).root_cause == "cuda.out-of-memory"
    assert told(text(before), text([*later, cause])).root_cause == "cuda.out-of-memory"


HARMLESS = [
    line for name, line in KNOWN if ALL[name].role in {Role.BENIGN, Role.NOTE, Role.STEP, Role.ALIVE, Role.ECHO}
]


@given(st.lists(st.sampled_from(HARMLESS)), st.lists(st.sampled_from(HARMLESS)), st.sampled_from(VERSIONS))
def test_scary_lines_are_no_alarm(before: list[str], later: list[str], version: str) -> None:
    """A healthy start stays one among any number of lines that only look bad."""
    quiet = [line for line in (*before, *later) if line.startswith("WARN ")]
    lines = [*before, *spoken([*rank(version), *quiet], version), *later, "INFO:     Application startup complete."]
    result = told(text([line for line in lines if not line.startswith("WARN ")]))
    assert (result.status, result.root_cause) == ("ok", None)


def test_a_healthy_start_of_vllm_over_two_nodes() -> None:
    """What vLLM, Ray and NCCL say at a start that goes well is no alarm, with all its waits and warnings."""
    start = (DATA / "vllm-0.32-start.log").read_text(encoding="utf-8").splitlines()
    waits = ["INFO 11-23 05:42:18 [ray_utils.py:233] Waiting for creating a placement group of specs for 150 seconds."]
    nccl = spoken(rank("2.28.9", network="IBext_v8"), "2.28.9")
    result = told(text([*start[:8], *waits, *start[8:12], *nccl, *start[12:]]))
    assert (result.status, result.root_cause, result.confidence) == ("ok", None, "high")


def test_a_start_that_waits_for_a_node() -> None:
    """A log that ends in waiting for the placement group says what it waits for."""
    start = (DATA / "vllm-0.32-start.log").read_text(encoding="utf-8").splitlines()[:8]
    waits = ["INFO 11-23 05:42:18 [ray_utils.py:233] Waiting for creating a placement group of specs for 150 seconds."]
    assert told(text([*start, *waits])).root_cause == "ray.placement-waits"


def test_a_closed_connection_is_no_cause() -> None:
    """The rank that lost its peer tells who that was, and that the cause is there."""
    result = told(ended("2.28.9", *CASCADES))
    assert (result.status, result.root_cause) == ("failed", None)
    peer = told(text(spoken([*rank("2.28.9"), CASCADES[0]], "2.28.9")))
    assert peer.verdict == (
        "Only consequences of something else: the peer node2 ended the connection. The cause is not in these lines"
    )


def test_the_rank_that_died_first() -> None:
    """Of two files with an error each, the earlier time is the cause, whatever the order of the files."""
    early = text(["[2026-11-23 01:54:30] x", *spoken(["WARN Cuda failure 'out of memory'"], "2.28.9", pid=1)])
    early = early.replace(b"01:54:39", b"01:54:31")
    late = text(spoken([completion("2.28.9", 12, "RETRY_EXC_ERR", 129)], "2.28.9", pid=2))
    for logs in ((early, late), (late, early)):
        assert told(*logs).root_cause == "nccl.cuda-out-of-memory"


def test_a_certain_cause_wins_where_no_time_is_told() -> None:
    """Of files without times, the error that cannot be a consequence is the cause."""
    peer = text(spoken([completion("2.21.5", 12, "RETRY_EXC_ERR", 129)], "2.21.5"))
    assert told(peer, b"RuntimeError: CUDA error: an illegal memory access was encountered\n").root_cause == (
        "cuda.illegal-access"
    )


@pytest.mark.parametrize(
    ("env", "cause"),
    [
        (["NCCL_IB_DISABLE set by environment to 1."], "nccl.ib-disabled-by-env"),
        (["NCCL_NET set by environment to Socket"], "nccl.socket-forced"),
        (["NCCL_IB_HCA set to roceP2p1s0f0"], "nccl.ib-hca-no-match"),
        (["Failed to open libibverbs.so[.1]"], "nccl.libibverbs-missing"),
        ([], "nccl.no-rdma-device"),
    ],
)
@pytest.mark.parametrize("version", ["2.18.3", "2.28.9"])
def test_over_sockets(version: str, env: list[str], cause: str) -> None:
    """Traffic between nodes over sockets is degraded, and the reason is told."""
    result = told(text(spoken(rank(version, network="Socket", env=env), version)))
    assert (result.status, result.root_cause) == ("degraded", cause)


def test_a_device_that_cannot_be_opened() -> None:
    """A container without /dev/infiniband is the cause of sockets."""
    env = ["WARN Call to ibv_open_device failed", "WARN NET/IB : Unable to open device mlx5_0"]
    result = told(text(spoken(rank("2.21.5", network="Socket", env=env), "2.21.5")))
    assert result.root_cause == "nccl.uverbs-missing"


def test_ranks_that_differ() -> None:
    """Ranks of one communicator over different networks, or with different versions, are told."""
    one = text(spoken(rank("2.28.9"), "2.28.9", pid=1))
    two = text(spoken(rank("2.28.9", number=1, network="Socket", channels=False), "2.28.9", pid=2))
    old = text(spoken(rank("2.27.7", number=1), "2.27.7", pid=2))
    assert told(one, two).root_cause == "nccl.networks-differ"
    assert told(one, old).root_cause == "nccl.versions-differ"


def test_gpudirect_off_is_no_alarm() -> None:
    """RDMA without GPUDirect is fine, and worth knowing."""
    result = told(text(spoken(rank("2.28.9", gdr=False), "2.28.9")))
    assert (result.status, result.root_cause, result.evidence[0].signature) == ("ok", None, "nccl.gdr-disabled")


@pytest.mark.parametrize("signature", ALL.values(), ids=ALL)
def test_a_signature_is_whole(signature: Signature) -> None:
    """What is wrong has a fix and a source; sentences have no full stop at the end; ids are area.name."""
    wrong = signature.role in {Role.CAUSE, Role.SUSPECT, Role.SLOW, Role.SYMPTOM}
    assert (bool(signature.fix) or not wrong, bool(signature.source)) == (True, True)
    assert (signature.cause.endswith("."), signature.id.count(".")) == (False, 1)


def test_checks_that_confirm_are_the_doctor_s() -> None:
    """Each check that a signature names is one of the doctor's."""
    known = {check.id for check in EVERY}
    assert sorted({one.confirm for one in ALL.values() if one.confirm} - known) == []


def test_enough_signatures() -> None:
    """Causes, suspects and symptoms alone are more than a hundred."""
    assert sum(one.role in {Role.CAUSE, Role.SUSPECT, Role.SLOW, Role.SYMPTOM} for one in ALL.values()) > 100


@given(st.binary())
def test_any_bytes(log: bytes) -> None:
    """No bytes make the verdict fail."""
    assert told(log).status in {"ok", "empty", "failed", "degraded"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clean_end_is_no_error(version: str) -> None:
    """torch aborts its communicators when a program ends by itself: nothing is wrong."""
    last = "INFO comm 0x55d rank 0 nranks 2 cudaDev 0 busId 1b000 - Abort COMPLETE"
    log = text([*spoken([*rank(version), last], version), "INFO:     Application shutdown complete."])
    assert (told(log).status, told(log).root_cause) == ("ok", None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_file_of_docker_reads_as_what_the_container_said(version: str) -> None:
    """/var/lib/docker/containers/*/*-json.log: a JSON object a line, the text in it as it was printed."""
    lines = text(spoken(rank(version), version)).decode().splitlines(keepends=True)
    when = "2026-11-25T03:00:01.123456789Z"
    packed = (json.dumps({"log": line, "stream": "stderr", "time": when}, separators=(",", ":")) for line in lines)
    plain, wrapped = told("".join(lines).encode()), told("\n".join(packed).encode())
    assert (wrapped.status, wrapped.root_cause) == (plain.status, plain.root_cause)
    assert [(one.network, one.channels, one.gdr) for one in wrapped.ranks] == [
        (one.network, one.channels, one.gdr) for one in plain.ranks
    ]


def test_memory_for_shapes_has_an_end_and_no_line_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of lines is forgotten when it grows, and every known line is counted all the same."""
    monkeypatch.setattr("shoal.explain.match.MOST_SHAPES", 3)
    words = [f"{letter} word {letter * 3}" for letter in "abcdefgh"]
    story = Story("log")
    for word in words:
        story.feed([b"ValueError: no such thing", word.encode(), b"torch.OutOfMemoryError: CUDA out of memory."])
    assert {name: (hit.line, hit.count, hit.last) for name, hit in story.hits.items()} == {
        "other.error": (1, 8, 22),
        "cuda.out-of-memory": (3, 8, 24),
    }
