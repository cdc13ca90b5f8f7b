"""Events on their way out: what is masked, and how they read."""

import io
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.log import MASK, Event, EventLog, Level, is_secret, json_line, redactor, story_line

NOON = time.mktime((2026, 11, 23, 12, 0, 5, 0, 0, -1))
KEY = "hf_0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    [
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN",
        "RAY_AUTH_TOKEN",
        "VLLM_API_KEY",
        "OPENAI_APIKEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "DB_PASSWORD",
        "MYSQL_PASSWD",
        "TLS_PRIVATE_KEY",
        "api_key",
        "hf_token",
    ],
)
def test_names_of_secrets(name: str) -> None:
    """A variable with a secret's name is a secret, in either case."""
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
        "SHOAL_API_KEY_FILE",
        "MAX_TOKENS",
        "max_tokens",
        "TOKENIZERS_PARALLELISM",
        "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE",
        "VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD",
        "NCCL_IB_HCA",
        "TIKTOKEN_ENCODINGS_BASE",
        "PATH",
    ],
)
def test_names_that_hold_no_secret(name: str) -> None:
    """The path of a secret, a number of tokens and a tokenizer's setting are no secrets."""
    assert not is_secret(name)


def test_a_field_with_a_secrets_name_is_masked_and_others_are_kept() -> None:
    """Fields are masked by their name, whatever they hold, also inside other fields."""
    event = Event("e", "m", fields={"HF_TOKEN": "x", "port": 1, "env": {"VLLM_API_KEY": 7, "PATH": "/bin"}})
    masked = Event("e", "m", fields={"HF_TOKEN": MASK, "port": 1, "env": {"VLLM_API_KEY": MASK, "PATH": "/bin"}})
    assert redactor(())(event) == masked


def test_a_secret_value_is_masked_wherever_it_appears() -> None:
    """A known secret is masked in the message, in fields, and in lists and mappings within them."""
    event = Event("e", f"with {KEY}!", fields={"url": f"http://u:{KEY}@h", "argv": ["--key", KEY], "at": {"q": KEY}})
    masked = Event(
        "e", f"with {MASK}!", fields={"url": f"http://u:{MASK}@h", "argv": ["--key", MASK], "at": {"q": MASK}}
    )
    assert redactor([KEY])(event) == masked


def test_of_two_secrets_the_longer_is_masked_first() -> None:
    """No tail of a secret stays where another secret is its beginning."""
    assert redactor(["abcdefgh", "abcdefghij"])(Event("e", "abcdefghij abcdefgh")).message == f"{MASK} {MASK}"


def test_a_short_value_is_left_alone() -> None:
    """A value of fewer than eight characters is not looked for: every `1` of a log would be masked."""
    assert redactor(["1", ""])(Event("e", "1 of 2")) == Event("e", "1 of 2")


@given(st.text(), st.text(min_size=8, alphabet="abcdef0123456789"), st.text())
def test_no_message_holds_a_secret(before: str, secret: str, after: str) -> None:
    """Whatever is around it, a secret never leaves."""
    assert secret not in redactor([secret])(Event("e", before + secret + after)).message.replace(MASK, "\0")


@pytest.mark.parametrize(
    ("level", "line"),
    [
        ("info", "12:00:05 WAIT_HEAD  waiting"),
        ("warn", "12:00:05 WAIT_HEAD  warning: waiting"),
        ("error", "12:00:05 WAIT_HEAD  error: waiting"),
    ],
)
def test_the_story_line(level: Level, line: str) -> None:
    """The story has local time, the event's name in capitals, the level where it matters, and the sentence."""
    assert story_line(Event("wait_head", "waiting", level, NOON)) == line


def test_a_message_of_several_lines_is_one_line_of_the_story() -> None:
    """An error with its reason and remedy stays on one line."""
    event = Event("failed", "a\nwhy: b\nfix: c", "error", NOON)
    assert story_line(event) == "12:00:05 FAILED     error: a; why: b; fix: c"


def test_the_json_line() -> None:
    """The JSON form is one flat object on one line, with text in its own script and any value told as text."""
    line = json_line(Event("ready", "zwölf\nTöne", "warn", 1.23456, {"took": 2.5, "error": ValueError("no")}))
    assert "\n" not in line
    assert "zwölf" in line
    assert json.loads(line) == {
        "time": 1.235,
        "level": "warn",
        "event": "ready",
        "message": "zwölf\nTöne",
        "took": 2.5,
        "error": "no",
    }


def test_an_event_passes_its_processors_before_anybody_sees_it() -> None:
    """Stream and listeners get the same, masked event."""
    stream, heard = io.StringIO(), list[Event]()
    log = EventLog(stream, processors=[redactor([KEY])], render=json_line, clock=lambda: 5.0)
    log.listeners.append(heard.append)
    log("launch", f"key {KEY}", level="warn", HF_TOKEN=KEY, gpus=2)
    assert heard == [Event("launch", f"key {MASK}", "warn", 5.0, {"HF_TOKEN": MASK, "gpus": 2})]
    assert stream.getvalue() == json_line(heard[0]) + "\n"


def test_the_default_is_the_story() -> None:
    """A log that is told nothing else writes the story, a line per event."""
    stream = io.StringIO()
    log = EventLog(stream, clock=lambda: NOON)
    log("up", "joined")
    log("up", "verified")
    assert stream.getvalue() == "12:00:05 UP         joined\n12:00:05 UP         verified\n"
