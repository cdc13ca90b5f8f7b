"""The documentation says what is there: generated pages are fresh, links lead somewhere, commands exist."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
import pytest

from shoal.ui.cli import VERBS
from shoal.ui.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*/*.md")])
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def load_tool(name: str) -> ModuleType:
    """Import a tool by its path; tools/ is no package. What it imports lies beside it, as when it is run."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        spec.loader.exec_module(module)
    return module


gen_docs = load_tool("gen_docs")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", text).lower() for text in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in plain}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield link


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command: lines of blocks marked ``sh``, and inline code."""
    blocks = [body for language, body in FENCE.findall(text) if language == "sh"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    for line in (*lines, *INLINE.findall(FENCE.sub("", text))):
        for part in re.split(r"&&|;|\||\$\(|\)", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # half of a quoted text, no command of ours
                continue
            if words:
                yield words


@cache
def options_of(verb: str) -> frozenset[str]:
    command = import_module(f"shoal.ui.verbs.{verb.replace('-', '_')}").verb if verb else cli
    known = {"-h", "--help"} if verb else {"-h", "--help", "-V", "--version"}
    below = command.commands.values() if verb and isinstance(command, click.Group) else ()
    params = (param for part in (command, *below) for param in part.params)
    return frozenset(known.union(*(param.opts for param in params if isinstance(param, click.Option))))


def wrong_words(words: list[str]) -> Iterator[str]:
    """What in a command does not exist: make's target, shoal's verb, an option of that verb."""
    program, *rest = words[: words.index("--")] if "--" in words else words  # another program's words follow
    if program == "make":
        targets = [word for word in rest if re.fullmatch(r"[a-z]+", word)]
        known = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
        yield from (f"make {word}" for word in targets if word not in known)
        inside = [word.removeprefix("ARGS=") for word in rest if word.startswith("ARGS=")]
        if targets == ["up"] and inside:
            yield from wrong_words(["shoal", "up", *shlex.split(inside[0])])
    elif program in {"shoal", ".venv/bin/shoal"} and rest:
        verb = "" if rest[0].startswith("-") else rest[0]
        if verb and verb not in VERBS and verb != "VERB":
            yield f"shoal {verb}"
            return
        known = options_of(verb if verb in VERBS else "")
        options = (word.partition("=")[0] for word in rest if re.match(r"--?[A-Za-z]", word))
        yield from (f"{program} {verb} {option}" for option in options if option not in known)


def test_generated_pages_are_fresh() -> None:
    """The pages in docs/reference are what the sources make of them now; `make docs` writes them."""
    assert [str(path) for path in gen_docs.stale()] == []


def test_no_page_in_reference_is_written_by_hand() -> None:
    """Whatever lies in docs/reference is made by tools/gen_docs.py."""
    assert {path.name for path in (ROOT / "docs/reference").iterdir()} == set(gen_docs.PAGES)


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    """In an empty folder every page is missing, and each is named."""
    assert [path.name for path in gen_docs.stale(tmp_path)] == list(gen_docs.PAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and a heading in it where it names one."""
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_exist(page: Path) -> None:
    """Each make target, verb and option that a page names is there."""
    text = page.read_text(encoding="utf-8")
    assert [wrong for words in commands(text) for wrong in wrong_words(words)] == []


def test_options_that_the_readme_names_alone_exist() -> None:
    """An option in the README that stands without its verb belongs to one of them."""
    known = frozenset[str]().union(*(options_of(verb) for verb in ("", *VERBS)))
    named = {code for code in INLINE.findall(prose(ROOT / "README.md")) if re.fullmatch(r"--?[a-z][a-z-]*", code)}
    assert "--json" in named
    assert named - known == set()


def test_every_page_is_reached_from_the_index() -> None:
    """Each page below docs/ is linked from docs/index.md."""
    index = ROOT / "docs/index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(prose(index)) if ":" not in link}
    assert {page for page in PAGES if index.parent in page.parents} - {index} <= linked


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`make up` and `shoal up --local --nodes 3`", []),
        ("`make dinner`", ["make dinner"]),
        ('`make up ARGS="--knots 3"`', ["shoal up --knots"]),
        ("`shoal dwon`", ["shoal dwon"]),
        ("`shoal ask --loud hello`", ["shoal ask --loud"]),
        ('`eval "$(shoal compilation bash)"`', ["shoal compilation"]),
        ("```sh\nshoal status --yaml && make tea\n```\n", ["shoal status --yaml", "make tea"]),
        ("```text\nshoal is ready\n```\n", []),
    ],
)
def test_what_counts_as_a_command(text: str, wrong: list[str]) -> None:
    """Blocks marked ``sh`` and inline code are commands, output is none."""
    assert [word for words in commands(text) for word in wrong_words(words)] == wrong
