"""Errors, as people see them: what, why, fix. Never a traceback for a user's mistake."""

import json
import sys

from shoal.errors import ShoalError


def show_error(error: ShoalError) -> None:
    """The error on standard error, coloured where that is a terminal."""
    red, bold, off = ("\033[31m", "\033[1m", "\033[0m") if sys.stderr.isatty() else ("", "", "")
    lines = [f"{red}{bold}error:{off} {error.what}"]
    if error.why:
        lines.append(f"{bold}why:{off} {error.why}")
    if error.fix:
        lines.append(f"{bold}fix:{off} {error.fix}")
    print("\n".join(lines), file=sys.stderr)


def error_line(error: ShoalError) -> str:
    """The error as one JSON object."""
    return json.dumps(
        {"event": "error", "what": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
    )
