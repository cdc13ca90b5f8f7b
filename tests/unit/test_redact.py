"""Secrets taken out of text: by value, by name, by shape; and what is none stays."""

import base64
import json
import shlex
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.log import MASK
from shoal.spec.redact import Redactor, left_in, of_environment, told_in

KEY = "pW7-q/Zt'9\"x+Lk=3"


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        json.dumps(KEY),
        json.dumps({"a": json.dumps(KEY)}),
        repr(KEY),
        shlex.quote(KEY),
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.urlencode({"k": KEY}),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
    ],
)
def test_a_known_value_goes_in_every_spelling(spelled: str) -> None:
    """A known secret is masked wherever it stands, as it is or as a program writes it."""
    redactor = Redactor([KEY])
    said = redactor.text(f"INFO starting with {spelled} now\n")
    assert MASK in said
    assert (said.startswith("INFO starting with "), said.endswith(" now\n"), redactor.masked) == (True, True, 1)
    assert not left_in(said.encode(), [KEY])


def test_every_line_of_a_value() -> None:
    """A secret of several lines is known line by line too."""
    assert Redactor(["first-line-1\nsecond-line-2"]).text("a second-line-2 b") == f"a {MASK} b"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("HF_TOKEN=abc", f"HF_TOKEN={MASK}"),
        ("HF_TOKEN='a b c' # mine", f"HF_TOKEN='{MASK}' # mine"),
        ("export WANDB_API_KEY=12345", f"export WANDB_API_KEY={MASK}"),
        ('{"api-key": "a, b", "port": 1}', f'{{"api-key": "{MASK}", "port": 1}}'),
        (r'"{\"password\": \"x y\"}"', rf'"{{\"password\": \"{MASK}\"}}"'),
        ('"Env": ["MY_SECRET=abc","PATH=/bin"]', f'"Env": ["MY_SECRET={MASK}","PATH=/bin"]'),
        ("vllm serve m --api-key abc --port 1", f"vllm serve m --api-key {MASK} --port 1"),
        ("vllm serve m --api-key=abc", f"vllm serve m --api-key={MASK}"),
        ("['--hf-token', 'abc', '--x']", f"['--hf-token', '{MASK}', '--x']"),
        ("serve\0--api-key\0abc\0--port\x001", f"serve\0--api-key\0{MASK}\0--port\x001"),
        ('--password "a b" -v', f'--password "{MASK}" -v'),
        ("Authorization: Basic abcd", f"Authorization: {MASK}"),
        ("{'authorization': 'Bearer x.y', 'n': 1}", f"{{'authorization': '{MASK}', 'n': 1}}"),
        ("curl -H 'Cookie: a=b; c=d'", f"curl -H 'Cookie: {MASK}'"),
        ("sent bearer abcdefgh12", f"sent bearer {MASK}"),
        ("pull from https://me:pa55@hub/x", f"pull from https://me:{MASK}@hub/x"),
        ("loaded with hf_abcdefghijklmnopqrst.", f"loaded with {MASK}."),
        ("key nvapi-0123456789abcdefgh used", f"key {MASK} used"),
        ("token: secret_thing", f"token: {MASK}"),
        ("aws_secret_access_key = ab/cd", f"aws_secret_access_key = {MASK}"),
    ],
)
def test_a_secret_by_its_name_or_shape(line: str, said: str) -> None:
    """What stands beside a secret's name is masked, however it is written; tokens of known shape anywhere."""
    assert Redactor().text(line) == said
    assert Redactor().text(said) == said


def test_a_private_key() -> None:
    """A private key goes whole, also one that is cut off."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef\n"
    assert Redactor().text(f"a\n{key}-----END OPENSSH PRIVATE KEY-----\nb\n") == f"a\n{MASK}\nb\n"
    assert Redactor().text(f"a\n{key}") == f"a\n{MASK}"


@pytest.mark.parametrize(
    "line",
    [
        "RAY_AUTH_TOKEN_PATH=/var/lib/shoal/ray.token",
        "RAY_AUTH_MODE=token",
        r'{"Plugins":"{\"Authorization\":null,\"Log\":null}"}',
        "api-key: generate",
        "api-key: env:MY_KEY",
        "      HUGGING_FACE_HUB_TOKEN: ${HUGGING_FACE_HUB_TOKEN:-}",
        "#HUGGING_FACE_HUB_TOKEN=",
        '{"last_token_age_s": 0.4, "max_tokens": 30}',
        '"secrets": [{"path": "state/api.key"}]',
        "speed 8 tokens in 0.4 s, 21 tokens/s",
        "tokenizer='/models/x', max_num_batched_tokens=8192",
        "GET http://192.168.100.1:8000/v1/models 200",
        "05:37:24 UP         a token was produced: 12 s after the last",
        "API key   in /home/you/.local/state/shoal/local/api.key",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    """Paths, references, settings and numbers stay readable."""
    redactor = Redactor()
    assert (redactor.text(line), redactor.masked) == (line, 0)


@given(st.binary(max_size=200))
def test_bytes_stay_bytes(data: bytes) -> None:
    """Where nothing is a secret, the bytes of a file are the same, text or not."""
    redactor = Redactor()
    assert redactor.data(data) == data or redactor.masked


@given(
    st.text("abcdefXYZ019+/=-_'\"\\ %$", min_size=6, max_size=30).filter(lambda text: len(text.strip()) >= 6),
    st.sampled_from(["{}", '{{"x": {}}}', "A={} b", "--name {}\n", "[{}]"]),
)
def test_no_known_value_survives(value: str, frame: str) -> None:
    """Whatever a secret is made of, nothing of it is left where it stood raw or in JSON."""
    redactor = Redactor([value])
    said = redactor.text(frame.format(value) + "\n" + frame.format(json.dumps(value)))
    assert not left_in(said.encode(), [value])


def test_values_that_are_told() -> None:
    """What a text tells by name or shape is known for all others, where it is random enough not to be a word."""
    text = "HF_TOKEN=hf_abcdefghijklmnop1\nSECRET=password\ntoken: a1b2c3d4e5f6\nlog of hf_zyxwvutsrqponmlk2\n"
    assert told_in(text) == {"hf_abcdefghijklmnop1", "a1b2c3d4e5f6", "hf_zyxwvutsrqponmlk2"}
    assert of_environment({"HF_TOKEN": "abc", "X": "y", "MY_SECRET": "", "A_TOKEN_PATH": "/p"}) == {"abc"}


def test_what_is_left_is_counted() -> None:
    """A secret that stands in bytes in any spelling is told."""
    data = f"a {KEY} b {json.dumps(KEY)}".encode()
    assert left_in(data, [KEY, "nothing-of-it"]) == {KEY: 2}


def test_one_long_word_is_one_look() -> None:
    """A long line costs its length, not the square of it: for that this would take minutes."""
    word = "ab-" * 60_000
    redactor = Redactor()
    assert redactor.text(f"token {word}db://me:hush@host") == f"token {word}db://me:{MASK}@host"
