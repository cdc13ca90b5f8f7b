"""``shoal``: the node agent, the engine supervisor, or the command line.

The first two run inside containers and start without the command line's libraries.
"""

import sys


def main() -> None:
    """Run what the first word names."""
    word = sys.argv[1] if len(sys.argv) == 2 else ""
    if word == "agent":
        from shoal.agent.main import main as agent
        from shoal.spec.environ import environ

        sys.exit(agent(environ()))
    if word == "serve":
        from shoal.engine.main import main as serve
        from shoal.spec.environ import environ

        sys.exit(serve(environ()))
    from shoal.ui.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
