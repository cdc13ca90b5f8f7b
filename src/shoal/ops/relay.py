"""``shoal relay``: what the operator asks a cluster, asked by the head for him.

Agents, supervisor and API answer on the fabric, where an operator's machine often is not. So the question goes over
ssh to the head, and this program asks there: with the release's own ``shoal.pyz``, in the agent's container where
there are containers. The question is one JSON object on standard input, the answer one line that begins with MARK.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoal.agent.selfpath import archive, importable
from shoal.errors import ShoalError
from shoal.ops.ask import ask
from shoal.ops.autopsy import autopsy
from shoal.ops.live import look_once
from shoal.ops.prove import Wish, prove
from shoal.ops.restart import Near
from shoal.ops.snapshot import snapshot, token_file
from shoal.ops.where import of_record
from shoal.spec.environ import environ
from shoal.state import journal
from shoal.state.run import RunRecord

MARK = "shoal-relay:"


Question = Mapping[str, Any]


def _live(record: RunRecord, question: Question) -> Any:
    del question
    return asyncio.run(look_once(record.nodes[0].agent_url, record.api_key_file)).model_dump(mode="json")


def _answer(record: RunRecord, question: Question) -> Any:
    limit, temperature = int(question["max_tokens"]), float(question.get("temperature", 0.0))
    told = ask(record, question["ask"], max_tokens=limit, temperature=temperature)
    return {"text": told.text, "tokens": told.tokens, "seconds": told.seconds}


def _engine(record: RunRecord, question: Question) -> Any:
    del question
    return Near.of(of_record(record)).status().model_dump(mode="json")


def _ordered(record: RunRecord, question: Question) -> Any:
    Near.of(of_record(record)).order(str(question["restart"]))
    return True


def _events(record: RunRecord, question: Question) -> Any:
    """This node's journals, as they lie on its disk: whoever of the others is silent."""
    return [asdict(entry) for entry in journal.read_folder(Path(record.api_key_file).parent, question["events"])]


def _proof(record: RunRecord, question: Question) -> Any:
    said: list[str] = []
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_file(record)}
    env = {**importable(environ(), archive()), **token, "RAY_ADDRESS": record.ray_address}
    asked = question["prove"]
    wish = Wish(asked["kind"], asked["seconds"], asked["expected"], tuple(asked["command"]))
    found = prove(of_record(record), lambda: (record.ray_address, env), wish, said.append)
    return {"found": asdict(found), "said": said}


def _page(record: RunRecord, question: Question) -> Any:
    del question
    return autopsy(of_record(record))


def _status(record: RunRecord, question: Question) -> Any:
    del question
    return snapshot(record).model_dump(mode="json")


# What is asked for -> the answer's name, and who finds it. A question that names none of the others is for the status.
PARTS: Mapping[str, tuple[str, Callable[[RunRecord, Question], Any]]] = {
    "live": ("live", _live),
    "ask": ("answer", _answer),
    "engine": ("engine", _engine),
    "restart": ("ordered", _ordered),
    "events": ("events", _events),
    "prove": ("proof", _proof),
    "autopsy": ("page", _page),
    "record": ("status", _status),
}


def answer(question: Question) -> dict[str, Any]:
    """The answer by its name, or the error."""
    record = RunRecord.model_validate(question["record"])
    name, part = next(PARTS[wanted] for wanted in PARTS if wanted in question)
    try:
        return {name: part(record, question)}
    except ShoalError as error:
        told = {"what": error.what, "why": error.why, "fix": error.fix, "kind": type(error).__name__}
        return {"error": told}


def main() -> int:
    """Read the question, write the answer."""
    sys.stdout.write(MARK + json.dumps(answer(json.load(sys.stdin))) + "\n")
    return 0
