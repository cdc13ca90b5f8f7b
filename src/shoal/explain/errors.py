"""The sentence of an error in a Python program's output, and the first one that is no consequence. Pure."""

import re
from collections.abc import Iterator, Sequence

from shoal.explain.table import is_consequence

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What launchers and loggers put in front of a line, in any order: "ray-worker  | ", "[rank0]: ",
# "(EngineCore pid=1) ERROR 11-23 05:31:27 [core.py:1510] ", "2026-11-23T05:31:27.123Z stdout F ", journald's.
HEAD = re.compile(
    r"(?:\([^()]{1,100}\)\s*"
    r"|[\w.\-]{0,80}\s*\|\s+"
    r"|(?:\d{1,3}\.){3}\d{1,3}:\s+|\d{1,5}:\s+"
    r"|\[(?:rank|default)?\d+\]:\s?"
    r"|\[[\w./]+:\d+\]\s*"
    r"|(?:ERROR|CRITICAL|WARNING|INFO)\s+"
    r"|\d\d-\d\d \d\d:\d\d:\d\d\s*"
    r"|\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+\-]\d\d:?\d\d)?\]?\s*(?:std(?:out|err) [FP] )?"
    r"|[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d [\w.\-]+ [\w.\-/@]+(?:\[\d+\])?: )*"
)
ERROR = re.compile(r"(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Exit|Interrupt)): (.+)")
USAGE = re.compile(r"error: (unrecognized arguments: .+|argument .+|the following arguments .+)")
VALIDATION = re.compile(r"\d+ validation errors? for ")
LONGEST = 400


def bare(line: str) -> str:
    """A line without colours and without what launchers and loggers put in front."""
    text = ANSI.sub("", line).strip()
    return text[HEAD.match(text).end() :].strip()  # type: ignore[union-attr]  # it matches the empty string too


def error_sentence(lines: Sequence[str], index: int) -> str:
    """What the error line at ``index`` says; empty where that line is none. Validation errors go on in later lines."""
    line = bare(lines[index])
    if usage := USAGE.search(line):
        return usage[1][:LONGEST]
    found = ERROR.match(line)
    if not found:
        return ""
    text = f"{found[1]}: {found[2]}"
    if VALIDATION.match(found[2]):
        text = " ".join((text, *_first_problem([bare(after) for after in lines[index + 1 : index + 4]])))
    return text[:LONGEST]


def first_cause(log: str) -> str:
    """The sentence of the first error that is no consequence of another; empty where no line tells one."""
    consequence = ""
    lines = log.splitlines()
    for index in range(len(lines)):
        text = error_sentence(lines, index)
        if text and not is_consequence(text):
            return text
        consequence = consequence or text
    return consequence


def _first_problem(lines: list[str]) -> Iterator[str]:
    """Pydantic's words after "1 validation error for X": the field where there is one, then what is wrong."""
    for line in lines:
        yield line.partition(" [type=")[0]
        if "[type=" in line:
            return
