"""``shoal boot``: what ran on this host before it was switched off is started again, as Docker would do it.

The host's cron starts it at a boot, with the release's own ``shoal.pyz``. ``shoal up`` writes that line into the user's
crontab, and ``shoal down`` takes it away. What was stopped on purpose is not written down any more, and stays so.
"""

import sys
from pathlib import Path

from shoal.host import hand, handed
from shoal.plan.fleet import CURRENT, ENV, PLAN, FleetPlan
from shoal.plan.fleet_node import start_step
from shoal.spec.dotenv import parse


def start_again(root: str) -> list[str]:
    """Start every program that is written down and does not run; what could not be started, in words.

    Agents wait for their address and their head, so nothing has to be waited for here.
    """
    current = Path(root) / CURRENT
    plan = FleetPlan.model_validate_json((current / PLAN).read_text(encoding="utf-8"))
    node = plan.node(parse((current / ENV).read_text(encoding="utf-8")).values["SHOAL_NODE_NAME"])
    failed: list[str] = []
    if node is None:
        return failed
    for unit in node.units:
        was = handed.json_of(handed.unit_file(root, unit.name))
        if was and not handed.lives(was):
            step = start_step(plan, node, unit)
            step["env"] = {**was.get("login", {}), **step["env"]}
            told = hand.work({"root": root, "steps": [step]})
            failed += [f"{unit.name}: {told['error']['why']}"] if told["error"] else []
    return failed


def main(archive: str) -> int:
    """Start what ran here; ``archive`` is the release's own, ``ROOT/current/shoal.pyz``."""
    root = Path(archive).parent.parent
    if not (root / CURRENT / PLAN).is_file():
        sys.stderr.write(f"error: {root} is no cluster's folder: a host's cron starts `shoal boot`, from a release\n")
        return 1
    failed = start_again(str(root))
    sys.stderr.write("".join(f"shoal boot: {words}\n" for words in failed))  # cron sends it to the user
    return 1 if failed else 0
