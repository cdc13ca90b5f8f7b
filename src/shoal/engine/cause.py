"""The first cause in the log of an engine that ended. Pure; the catalogue of signatures builds on this."""

import re
from collections.abc import Iterator

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# vLLM's and Ray's line heads: "(EngineCore pid=1) ERROR 11-23 05:31:27 [core.py:1510] ".
HEAD = re.compile(
    r"^(?:\([^)]*\)\s*)*(?:ERROR|CRITICAL|WARNING|INFO)?\s*(?:\d\d-\d\d \d\d:\d\d:\d\d)?\s*(?:\[[\w./]+:\d+\])?\s*"
)
ERROR = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Exit|Interrupt)): (.+)")
USAGE = re.compile(r"error: (unrecognized arguments: .+|argument .+|the following arguments .+)")
VALIDATION = re.compile(r"\d+ validation errors? for ")
# Errors that only report that something else failed.
CASCADE = re.compile(
    r"EngineDeadError|Engine core initialization failed|EngineCore encountered an issue|See (root cause|stack trace)"
    r"|TaskPlacementGroupRemoved|ActorDiedError|RayActorError|CancelledError|BrokenPipe|Executor failed"
)


def first_cause(log: str) -> str:
    """The sentence of the first error that is no consequence of another; empty where no line tells one."""
    consequence = ""
    lines = [HEAD.sub("", ANSI.sub("", raw)).strip() for raw in log.splitlines()]
    for index, line in enumerate(lines):
        if usage := USAGE.search(line):
            return usage[1]
        if found := ERROR.match(line):
            text = f"{found[1]}: {found[2]}"
            if VALIDATION.match(found[2]):
                text = " ".join((text, *_first_problem(lines[index + 1 : index + 4])))
            if not CASCADE.search(text):
                return text[:400]
            consequence = consequence or text[:400]
    return consequence


def _first_problem(lines: list[str]) -> Iterator[str]:
    """Pydantic's words after "1 validation error for X": the field where there is one, then what is wrong."""
    for line in lines:
        yield line.partition(" [type=")[0]
        if "[type=" in line:
            return
