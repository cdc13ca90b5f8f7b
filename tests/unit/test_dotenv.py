"""Environment files, read as Docker Compose v2 reads them."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigError
from shoal.spec.dotenv import Dotenv, DotenvError, Entry, parse, read

VALUES = {
    "A=5": "5",
    "A = 5 ": "5",
    "A: 5": "5",
    "export A=5": "5",
    "export\tA=5": "5",
    "  A=5": "5",
    "A=": "",
    "A=''": "",
    "A=5 # why": "5",
    "A=5# why": "5# why",
    "A=5\t# why": "5\t# why",
    "A=#5": "#5",
    "A='5' # why": "5",
    "A='a # b'": "a # b",
    "A='a\nb'": "a\nb",
    "A='it\\'s'": "it's",
    "A='\\n$B'": "\\n$B",
    'A="\\n\\t\\\\ \\" \\$B"': '\n\t\\ " $B',
    'A="\\0101"': "A",
    'A="\\012 \\0 \\0777"': "\\012 \\0 \\0777",
    "A=   # why": "# why",
    'A="\\q"': "\\q",
    'A=a"b': 'a"b',
    "A=$$B": "$B",
    "A=${B}": "",
    "A=${B:-c}": "c",
    "A=${B-c}": "c",
    "A=${B:+c}": "",
    "A=${B:-${C:-d}}": "d",
    "B=\nA=${B:-c}": "c",
    "B=\nA=${B-c}": "",
    "B=b\nA=${B:+c}": "c",
    "B=b\nA=x${B}y$B": "xbyb",
    "B=b\nA=${B:?gone}": "b",
    "A=1\r\n": "1",
    "\ufeffA=1": "1",
    "# A=2\n\n  # B\nA=1": "1",
    "A=1\nA=2": "2",
    "A=a b": "a b",
    "A=a=b:c": "a=b:c",
}


@pytest.mark.parametrize("text", VALUES)
def test_a_value(text: str) -> None:
    """The value is what Compose would give to a container."""
    assert parse(text).values["A"] == VALUES[text]


def test_a_whole_file() -> None:
    """Each variable has its line, its raw text and its quote; a name alone is the shell's."""
    text = "# first\r\nexport A=\"x $B\"  # c\r\nC\r\nD='1\r\n2'\r\nE=3 # d\r\n"
    assert parse(text, {"C": "from the shell"}) == Dotenv(
        (
            Entry("A", "x ", 2, '"x $B"', '"', missing=("B",)),
            Entry("C", "from the shell", 3, "", inherited=True),
            Entry("D", "1\n2", 4, "'1\n2'", "'"),
            Entry("E", "3", 6, "3 # d"),
        ),
        crlf=True,
    )


def test_the_shell_wins_in_a_substitution() -> None:
    """A variable that is put in comes from the shell before the file, as in Compose."""
    assert parse("B=file\nA=$B", {"B": "shell"}).values == {"B": "file", "A": "shell"}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("A=1\nB='x", 2, "the quote ' is not closed"),
        ("A B=1", 1, "a name cannot contain a space: 'A B'"),
        ("=1", 1, "no variable's name: ''"),
        ("A;=1", 1, "no variable's name: 'A;'"),
        ("A=1\n\nB=cost$", 3, "a dollar that names no variable in 'cost$'; a dollar alone is $$"),
        ("A=${B", 1, "a dollar that names no variable in '${B'; a dollar alone is $$"),
        ("A=${1}", 1, "a dollar that names no variable in '${1}'; a dollar alone is $$"),
        ("A=${B:?set it}", 1, "B is not set: set it"),
        ("A=${B!x}", 1, "no form of ${B}"),
        ("A=" + "${B:-" * 30 + "}" * 30, 1, "variables are nested too deep"),
    ],
)
def test_a_line_that_compose_refuses(text: str, line: int, problem: str) -> None:
    """A line that cannot be read is refused with its number and the reason."""
    with pytest.raises(DotenvError) as raised:
        parse(text)
    assert (raised.value.line, raised.value.problem) == (line, problem)


ALPHABET = st.sampled_from([*"AB=:'\"\\$#{}-+? \t\r\n1\ufeff\x00ä", "export ", "${A:-", "$(touch /x)", "`id`"])


@given(st.one_of(st.text(), st.lists(ALPHABET).map("".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything but our own error."""
    with contextlib.suppress(DotenvError):
        parse(text)


@given(st.text(st.characters(exclude_characters="'\\", exclude_categories=("Cs",))))
def test_single_quotes_keep_all_that_they_hold(text: str) -> None:
    """A text between single quotes comes back as it was, but for CRLF."""
    assert parse(f"A='{text}'").values == {"A": text.replace("\r\n", "\n")}


def test_nothing_is_executed(tmp_path: Path) -> None:
    """Commands in a file are refused or text."""
    parse(f"A=`touch {tmp_path}/a`\nB='$(touch {tmp_path}/b)'")
    with pytest.raises(DotenvError):
        parse(f"A=$(touch {tmp_path}/c)")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Line ends are kept, and the permission bits are told."""
    file = tmp_path / ".env"
    file.write_bytes(b"A=1\r\n")
    file.chmod(0o640)
    assert read(file) == ("A=1\r\n", 0o640)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """A file that is absent, a folder, not UTF-8 or far too large is refused by name."""
    (tmp_path / "latin").write_bytes(b"A=\xe4")
    (tmp_path / "large").write_bytes(b"#" * (1 << 21))
    for name in ("absent", ".", "latin", "large"):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            read(tmp_path / name)
