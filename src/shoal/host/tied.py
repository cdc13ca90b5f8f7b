"""A long command that ends when we do: by Ctrl-C, by a kill, by a lost connection."""

from collections.abc import Sequence

from shoal.host.base import Host, Result

MARK = "<shoal>"
# The input's end, which is this side's, ends the command's whole process group: `timeout` leads it, and may die before
# it has noted whom it started.
TIED = (
    'exec 3<&0; timeout -s KILL "$@" </dev/null & job=$!; '
    '{ cat <&3 >/dev/null; kill -s TERM -- "-$job" "$job"; } 2>/dev/null & watch=$!; '
    'wait "$job"; code=$?; kill "$watch" 2>/dev/null; printf "\\n%s%d\\n" "$0" "$code"'
)


def tied(host: Host, argv: Sequence[str], *, timeout: float) -> Result:
    """Run a command to its end; any exit code is the caller's to judge, 137 where it took longer than ``timeout``.

    Raises:
        HostError: it was not run, or the connection broke.
    """
    argv, code, lines = tuple(argv), None, []
    talk = host.start(("sh", "-c", TIED, MARK, f"{timeout:g}", *argv))
    try:
        while (line := talk.line()) is not None:
            if line.startswith(MARK):
                code = int(line.removeprefix(MARK))
            else:
                lines.append(line)
        if code is None:
            raise talk.blame()
        return Result(argv, code, "\n".join(lines).strip("\n"), talk.ended()[0])
    finally:
        talk.close()
