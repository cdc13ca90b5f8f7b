"""The compose files, key by key."""

from collections.abc import Sequence

from pages.markdown import code, page, table
from shoal.plan.container import PROFILES, ROLES, plan_container


def compose_page() -> str:
    """Every key of the compose files, with the deployments that have it."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for role in ROLES:
        for profile in PROFILES:
            for row in plan_container(role, profile).reasons():
                places = found.setdefault(row, [])
                places += [(role, profile)] if (role, profile) not in places else []
    rows = [(code(path), code(value), where(places), why) for (path, value, why), places in found.items()]
    heads = ("key", "value", "in", "why")
    environment = [row for row in rows if row[0].startswith("`environment")]
    return page(
        "Compose files",
        "What `shoal render worker` and `shoal render head` write, key by key. A reason holds for the keys below its "
        "own too.\nThe service `vllm` of the head has all keys of `ray-node`, but for those with a value of its own.\n",
        "## Keys\n",
        table(heads, (row for row in rows if row not in environment)),
        "## Environment\n",
        "A variable without a value is passed on only where `.env` or the shell sets it.\n",
        table(heads, ((name.replace("environment.", ""), *rest) for name, *rest in environment)),
    )


def where(places: Sequence[tuple[str, str]]) -> str:
    """The deployments of a row in words: roles and profiles, as far as they tell something."""
    roles = [role for role in ROLES if any(place[0] == role for place in places)]
    profiles = [profile for profile in PROFILES if any(place[1] == profile for place in places)]
    parts = ([] if len(roles) == len(ROLES) else roles) + ([] if len(profiles) == len(PROFILES) else profiles)
    return ", ".join(parts) or "all"
