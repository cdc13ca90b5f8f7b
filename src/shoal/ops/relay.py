"""``shoal relay``: what the operator asks a cluster, asked by the head for him.

Agents, supervisor and API answer on the fabric, where an operator's machine often is not. So the question goes over
ssh to the head, and this program asks there: with the release's own ``shoal.pyz``, in the agent's container where
there are containers. The question is one JSON object on standard input, the answer one line that begins with MARK.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from shoal.errors import ShoalError
from shoal.ops.ask import ask
from shoal.ops.live import look_once
from shoal.ops.snapshot import snapshot
from shoal.state.run import RunRecord

MARK = "shoal-relay:"


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer: the cluster's status, all that moves in it, or the model's words."""
    record = RunRecord.model_validate(question["record"])
    try:
        if "live" in question:
            live = asyncio.run(look_once(record.nodes[0].agent_url, record.api_key_file))
            return {"live": live.model_dump(mode="json")}
        if "ask" in question:
            told = ask(record, question["ask"], max_tokens=int(question["max_tokens"]))
            return {"answer": {"text": told.text, "tokens": told.tokens, "seconds": told.seconds}}
    except ShoalError as error:
        return {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
    return {"status": snapshot(record).model_dump(mode="json")}


def main() -> int:
    """Read the question, write the answer."""
    sys.stdout.write(MARK + json.dumps(answer(json.load(sys.stdin))) + "\n")
    return 0
