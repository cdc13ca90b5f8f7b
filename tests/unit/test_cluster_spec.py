"""``shoal.yaml``: what is read, and how each mistake is told."""

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigError
from shoal.spec import yaml_text
from shoal.spec.cluster import ClusterSpec, HostSpec, ModelSpec, ServingSpec, load, parse

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from pages.cluster import EXAMPLE

SMALL = "cluster: lab\nhosts:\n  - name: a\n"


def told(text: str) -> list[str]:
    """What is said of a text that cannot be read, line by line."""
    with pytest.raises(ConfigError) as raised:
        parse(text, "shoal.yaml")
    return raised.value.what.splitlines()


def test_the_smallest_file() -> None:
    """A name and one host are enough; all else has its default."""
    assert parse(SMALL, "shoal.yaml") == ClusterSpec(cluster="lab", hosts=(HostSpec(name="a", role="head"),))


def test_the_example_of_the_reference_page() -> None:
    """What the page shows is read as it says."""
    spec = parse(EXAMPLE, "shoal.yaml")
    assert [host.model_dump(exclude_defaults=True) for host in spec.hosts] == [
        {"name": "spark-1", "ssh": "me@spark-1.lan", "fabric": "192.168.100.1", "role": "head"},
        {"name": "spark-2", "fabric": "192.168.100.2", "gpus": 1, "env": {"NCCL_DEBUG": "INFO"}},
    ]
    assert (spec.model, spec.serving) == (
        ModelSpec.model_validate({"name": "smollm2", "tensor-parallel": 2}),
        ServingSpec.model_validate({"api-key": "env:SHOAL_KEY"}),
    )


def test_one_word_is_a_model() -> None:
    """`model: KEY` is short for its name alone."""
    assert parse(f"{SMALL}model: /data/m\n", "shoal.yaml").model == ModelSpec(name="/data/m")


def test_processes_need_a_python() -> None:
    """Without containers, the file says which Python has vLLM and Ray, as an absolute path."""
    text = f"{SMALL}runtime: process\n"
    assert told(text) == [
        "shoal.yaml:4: runtime: process needs `python: PATH`, the Python of every host that has vLLM and Ray"
    ]
    assert told(f"{text}python: bin/python\n") == [
        "shoal.yaml:5: python: 'bin/python': expected an absolute path, without blanks and colons"
    ]
    assert parse(f"{text}python: /opt/vllm/bin/python\n", "shoal.yaml").python == "/opt/vllm/bin/python"


def test_words_are_no_truth_values() -> None:
    """A host may be called `no` or `on`, which older YAML takes for truth values."""
    spec = parse("cluster: yes\nhosts: [{name: no}, {name: on, env: {NCCL_IB_TC: 104}}]\n", "shoal.yaml")
    assert (spec.cluster, [host.name for host in spec.hosts]) == ("yes", ["no", "on"])
    assert spec.hosts[1].env == {"NCCL_IB_TC": "104"}


def test_nothing_changes_a_spec() -> None:
    """What was read stays as it is."""
    with pytest.raises(ValueError, match="frozen"):
        parse(SMALL, "shoal.yaml").cluster = "other"


MANY = """\
cluster: lab ab
imge: x
hosts:
  - name: a
    fabrik: 1
    fabric: 300.1.1.1
    gpus: true
  - name: a
    role: hed
    env: {NCCL_IB_TCC: 1}
  - 7
fabric: {tc: 300, gdr: phb}
serving: {port: 70000, api-key: sk-secret}
model: {tensor_parallel: 2}
runtime: composes
runtime: local
"""


def test_all_mistakes_are_told_at_once() -> None:
    """Each has its line, the place, the value, what was expected, and the nearest right word; a key is not shown."""
    assert told(MANY) == [
        "shoal.yaml:1: cluster: 'lab ab': expected letters, digits, dots and dashes, at most 63",
        'shoal.yaml:2: imge: unknown key; did you mean "image" or "runtime"?',
        'shoal.yaml:5: hosts[0].fabrik: unknown key; did you mean "fabric"?',
        "shoal.yaml:6: hosts[0].fabric: '300.1.1.1': expected an IP address, or auto",
        "shoal.yaml:7: hosts[0].gpus: True: expected auto, or a number from 0 to 64",
        "shoal.yaml:8: hosts[1].name: 'a' is hosts[0] already",
        "shoal.yaml:9: hosts[1].role: 'hed': expected 'head' or 'worker'; did you mean \"head\"?",
        (
            "shoal.yaml:10: hosts[1].env: NCCL_IB_TCC is not in the environment's table; "
            'did you mean "NCCL_IB_TC" or "NCCL_IB_HCA" or "NCCL_IB_SL"?'
        ),
        "shoal.yaml:11: hosts[2]: 7: expected keys with values",
        "shoal.yaml:12: fabric.gdr: 'phb': expected 'auto', 'LOC', 'PIX', 'PXB', 'PHB' or 'SYS'; did you mean \"PHB\"?",
        "shoal.yaml:12: fabric.tc: 300: expected less than or equal to 255",
        (
            "shoal.yaml:13: serving.api-key: expected generate, env:VARIABLE or file:PATH; "
            "the key itself never stands here"
        ),
        "shoal.yaml:13: serving.port: 70000: expected less than or equal to 65535",
        "shoal.yaml:14: model.name: expected, and missing",
        'shoal.yaml:14: model.tensor_parallel: unknown key; did you mean "tensor-parallel" or "pipeline-parallel"?',
        "shoal.yaml:15: runtime: 'composes': expected 'compose', 'process' or 'local'; did you mean \"compose\"?",
        "shoal.yaml:16: runtime: it stands twice, first in line 15",
    ]


HOSTS = "cluster: x\nhosts:\n"
# Text -> what is said of it.
WRONG = {
    "a:\n\tb: 1\n": "2: a tab at the beginning of the line: YAML indents with spaces",
    "": "1: expected keys such as `hosts:`; known: cluster, image, hosts, fabric, model, serving, runtime",
    "- 1": "1: expected keys such as `hosts:`; known: cluster, image, hosts, fabric, model, serving, runtime",
    "cluster: x\nhosts: []\n": "2: hosts: expected at least one host",
    "cluster: x\nhosts: 7\n": "2: hosts: 7: expected a list",
    "cluster: 5\nhosts: [{name: a}]\n": "1: cluster: 5: expected text; put it in quotes",
    "cluster: x\n": "1: hosts: expected, and missing",
    f"{SMALL}---\n{SMALL}": "4: a second document begins here: expected one",
    "cluster: 'a": "1: not YAML: found unexpected end of stream",
    f"{SMALL}? [a]\n: 1\n": "4: expected a plain word as the key",
    f"{SMALL}fabric: &f {{tc: 1}}\nserving: *f\n": "5: serving: *f: aliases are not read; write the value out",
    f"{SMALL}image: !!python/name:os.system x\n": (
        "4: image: the tag tag:yaml.org,2002:python/name:os.system is not read; write the plain value"
    ),
    f"{HOSTS}  - name: a\n    role: head\n  - name: b\n    role: head\n": (
        "6: hosts[1].role: a second head; the first is hosts[0]"
    ),
    f"{HOSTS}  - name: a\n    role: worker\n": "2: hosts: no host is the head: expected `role: head` for one",
    f"{HOSTS}  - {{name: a, fabric: '::1'}}\n  - {{name: b, fabric: '0::1'}}\n": (
        "4: hosts[1].fabric: '0::1' is hosts[0] already"
    ),
    f"{HOSTS}  - {{name: a, ssh: x}}\n  - {{name: b, ssh: x}}\n": "4: hosts[1].ssh: 'x' is hosts[0] already",
    f"{HOSTS}  - {{name: a, ssh: -oProxyCommand=id}}\n": (
        "3: hosts[0].ssh: '-oProxyCommand=id': expected a name of your ssh config, USER@HOST, or ssh://USER@HOST:PORT"
    ),
    f"{HOSTS}  - {{name: a, fabric: 0.0.0.0}}\n": "3: hosts[0].fabric: '0.0.0.0': expected the address of one machine",
    f"{HOSTS}  - {{name: a, env: {{HUGGING_FACE_HUB_TOKEN: hf_x}}}}\n": (
        "3: hosts[0].env: HUGGING_FACE_HUB_TOKEN is a secret, and never stands here"
    ),
    f"{HOSTS}  - {{name: a, env: {{NCCL_IB_TC: 999}}}}\n": "3: hosts[0].env: NCCL_IB_TC=999: it is more than 255",
    f"{HOSTS}  - {{name: a, gpus: '1'}}\n": "3: hosts[0].gpus: '1': expected auto, or a number from 0 to 64",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_told_with_its_line(text: str) -> None:
    """The first thing that is said names file, line, and what was expected."""
    assert any(line.startswith(f"shoal.yaml:{WRONG[text]}") for line in told(text)), told(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 5_000 + "x"])
def test_a_bottomless_file_is_refused(text: str) -> None:
    """Depth is bounded before anything can overflow."""
    assert told(text) == ["shoal.yaml:1: nested more than 20 levels deep"]


def test_an_anchor_bomb_is_refused() -> None:
    """Nine lines that stand for a billion values are refused line by line."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
    assert all(
        "aliases are not read" in line or "unknown key" in line or "missing" in line
        for line in told("\n".join(lines))[:-1]
    )


def test_ten_thousand_hosts_are_read_and_their_mistakes_counted() -> None:
    """A large fleet is read; where every host is wrong, the first mistakes are told and the others counted."""
    names = [f"gpu-{n}" for n in range(10_000)]
    spec = parse("cluster: x\nhosts:\n" + "".join(f"  - name: {name}\n" for name in names), "shoal.yaml")
    assert [host.name for host in spec.hosts] == names
    lines = told("cluster: x\nhosts:\n" + "".join(f"  - nam: {name}\n" for name in names))
    assert (len(lines), lines[0], lines[-1]) == (
        31,
        'shoal.yaml:3: hosts[0].nam: unknown key; did you mean "name"?',
        "and 19970 more",
    )


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_text_is_more_than_a_mistake(text: str) -> None:
    """Whatever the file holds, it is read or told to be wrong."""
    try:
        parse(text, "shoal.yaml")
    except ConfigError:
        return


KEYS = ("cluster", "hosts", "name", "model", "env", "fabric", "tc", "serving", "port", "role", "x")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="ascii", categories=["L"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_no_values_are_more_than_a_mistake(value: object) -> None:
    """Whatever the values are, they are read or told to be wrong."""
    try:
        parse(yaml.safe_dump(value), "shoal.yaml")
    except ConfigError:
        return


@given(JSON)
def test_values_are_read_as_they_were_written(value: object) -> None:
    """Without aliases, tags and duplicates the reader agrees with PyYAML's own on what PyYAML writes."""
    assert yaml_text.parse(yaml.safe_dump(value), "x").data == value


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, too large, or no text is named."""
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (yaml_text.LARGEST + 1))
    binary.write_bytes(b"a: 1\nb: \xff\n")
    wrong = {
        tmp_path / "none": f"cannot read {tmp_path}/none",
        tmp_path: f"cannot read {tmp_path}",
        large: f"{large} has more than 4 MiB",
        binary: f"{binary}:2: not UTF-8",
    }
    for path, what in wrong.items():
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert raised.value.what == what
