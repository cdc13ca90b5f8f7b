"""Where shoal itself is, for children: out of ``shoal.pyz``, a child Python finds it only by ``PYTHONPATH``.

``python -m shoal.facts.ray_child``, Ray's start hook and vLLM's ``--middleware`` all import shoal in processes of their
own. ``__main__`` calls this once, before agent or supervisor begin; children inherit it from there.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import shoal


def archive() -> Path | None:
    """The zip file that shoal runs from; None where it is a folder."""
    return next((path for path in Path(shoal.__file__).absolute().parents if path.is_file()), None)


def importable(env: Mapping[str, str], found: Path | None) -> dict[str, str]:
    """The environment with the archive ``found`` on ``PYTHONPATH``, first and once; as it was where there is none."""
    if found is None:
        return dict(env)
    others = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(found)]
    return {**env, "PYTHONPATH": os.pathsep.join((str(found), *others))}
