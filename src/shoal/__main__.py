"""``shoal``: the node agent, the engine supervisor, the keeper, the relay, the start at a boot, the health
check, or the command line.

All but the last run inside containers or on hosts, and start without the command line's libraries.
"""

import sys
from collections.abc import Callable


def main() -> None:
    """Run what the first word names."""
    words = sys.argv[1:]
    try:
        run = _light(words) or _cli()
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "shoal":
            raise
        what = f"shoal {' '.join(words[:1])}".strip()
        why = f"{what} needs the Python package {error.name}, which {sys.executable} does not have"
        sys.exit(f"error: {why}\nfix: run agent and serve in a vLLM image; for the other verbs install shoal with pip")
    sys.exit(run())


def _light(words: list[str]) -> Callable[[], int] | None:
    """The program of one word, loaded; None where the command line has to read the words."""
    if words == ["agent"]:
        from shoal.agent.main import main as agent

        return lambda: agent(_env())
    if words == ["serve"]:
        from shoal.engine.main import main as serve

        return lambda: serve(_env())
    if words == ["keep"]:
        from shoal.ops.keeper import main as keep

        return lambda: keep(_env())
    if words == ["boot"]:
        from shoal.ops.boot import main as boot

        return lambda: boot(sys.argv[0])
    if words == ["relay"]:
        from shoal.ops.relay import main as relay

        return relay
    if words[:1] == ["health"] and not any(word.startswith("-") for word in words):
        from shoal.ui.health import main as health

        return lambda: health(_env(), words[1:])
    if words in (["--version"], ["-V"]):
        return _version
    return None


def _env() -> dict[str, str]:
    """The environment, with which children find shoal where it runs from a zip file."""
    from shoal.agent.selfpath import archive, importable
    from shoal.spec.environ import environ

    return importable(environ(), archive())


def _version() -> int:
    from shoal import __version__

    print(f"shoal {__version__}")
    return 0


def _cli() -> Callable[[], int]:
    from shoal.ui.cli import main as cli

    return lambda: int(cli() or 0)


if __name__ == "__main__":
    main()
