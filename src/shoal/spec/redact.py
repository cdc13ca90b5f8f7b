"""Secrets taken out of any text: values that are known, values beside a secret's name, and what looks like one. Pure.

A support archive holds what nobody wrote for strangers: environments, command lines, logs. What is known to be a secret
is replaced wherever it stands, in each spelling that programs give it. What is not known goes by the name beside it
(``HF_TOKEN=...``, ``--api-key ...``, ``"password": "..."``) or by its shape (``hf_...``, a private key). In doubt it
goes.
"""

import base64
import json
import re
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from shoal.log import MASK, is_secret

# Shorter values stand in ordinary words; beside their names they are masked all the same.
SHORTEST = 6

_QUOTED = r"(?P<open>\\*[\"'])(?P<text>.*?)(?P=open)"
_BARE = r"[^\s\0\"'\\]+"
# A name, the quotes that close it (escaped ones are JSON within JSON), and its value.
_BESIDE = re.compile(rf"(?P<name>[A-Za-z_][\w.-]{{2,80}})\\*[\"']?\s*(?:=>|[=:])\s*(?P<value>{_QUOTED}|{_BARE})")
# An option and its value: on a command line, as a list of words, or with NULs between as in /proc/PID/cmdline.
_OPTION = re.compile(
    rf"(?<!\w)--?(?P<name>[A-Za-z][\w-]{{2,60}})\\*[\"']?(?:=|\s*,\s*|\s+|\0)(?P<value>{_QUOTED}|{_BARE})"
)
_HEADER = re.compile(
    r"(?i)\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key)\\*[\"']?\s*[:=,]\s*\\*[\"']?"
    r"(?!null|true|false|[\[{])(?P<value>[^\"'\\\r\n]+)"
)
_BEARER = re.compile(r"(?i)\bbearer[ =]+(?P<value>[\w+/=~.-]{8,})")
# Of the scheme its last letter: looked for from its beginning, one long word takes the square of its length.
_USER = re.compile(r"[A-Za-z0-9+.-]://[^\s/:@]*:(?P<value>[^\s/@]+)(?=@)")
_SHAPE = re.compile(
    r"(?P<value>\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|nvapi-[\w-]{16,}|xox[abposr]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}"
    r"|dckr_pat_[\w-]{16,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+))"
)
_PRIVATE = re.compile(
    r"(?P<value>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))", re.DOTALL
)
# In the order in which they are tried; a name decides in the last two.
_RULES = (_SHAPE, _USER, _HEADER, _BEARER, _OPTION, _BESIDE)
# A line without any of these holds nothing for the rules: most of a log.
_WORTH_A_LOOK = re.compile(
    r"(?i)token|secret|passw|credential|api.?key|access.?key|private.?key|bearer|authoriz|cookie|://|\beyJ|hf_|sk-"
    r"|gh[pousr]_|github_pat|glpat|nvapi|xox|akia|asia|aiza|dckr_pat"
)
# What stands beside a secret's name and is none: a reference, a setting, an opening bracket, a mask.
_PLAIN = re.compile(
    r"(?i)env:\w+|file:.*|\$\{?\w+(?::?[-?])?\}?|generate|none|null|true|false|yes|no|set|unset|\*+|<[^>]*>|[\[{(<,]*"
)
_NUMBER = re.compile(r"-?[\d.]{1,12}(?:m?s)?[,;)}\]]*")
_RANDOM = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])\S{12,}|\S{24,}")


class Redactor:
    """Masks secrets. ``masked`` counts what it took out."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        spelled = {spelling for value in values for spelling in spellings(value)}
        longest_first = sorted(spelled, key=lambda value: (-len(value), value))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if spelled else None
        self.masked = 0

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known:
            text = self._known.sub(self._whole, text)
        text = _PRIVATE.sub(self._whole, text)
        lines = text.splitlines(keepends=True)
        return "".join(self._line(line) if _WORTH_A_LOOK.search(line) else line for line in lines)

    def data(self, data: bytes) -> bytes:
        """Bytes of a file; those that are no text stay as they are."""
        return self.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _line(self, line: str) -> str:
        for rule in _RULES:
            line = rule.sub(self._value, line)
        return line

    def _whole(self, found: re.Match[str]) -> str:
        del found
        self.masked += 1
        return MASK

    def _value(self, found: re.Match[str]) -> str:
        """What was found, with its value masked where it is one."""
        value = _secret_in(found)
        if not value:
            return found[0]
        self.masked += 1
        first = found[0].rindex(value)
        return found[0][:first] + MASK + found[0][first + len(value) :]


def _secret_in(found: re.Match[str]) -> str:
    """The secret in what a rule has found; empty where there is none."""
    groups = found.groupdict()
    value = str(groups.get("text") or ("" if groups.get("open") else groups["value"]))
    name = groups.get("name")
    if set(value) <= {"*"} or (name is not None and not is_secret(name.replace("-", "_"))):
        return ""
    if name is not None and (_PLAIN.fullmatch(value) or (_NUMBER.fullmatch(value) and not name.isupper())):
        return ""
    return value


def spellings(value: str) -> Iterator[str]:
    """A secret as programs write it: as it is, in JSON, Python, a shell and a URL, in base64, and line by line."""
    value = value.strip()
    parts = {value, *(line.strip() for line in value.splitlines())}
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        coded = base64.b64encode(data).decode().rstrip("=")
        written = (
            json.dumps(part)[1:-1],
            json.dumps(json.dumps(part)[1:-1])[1:-1],  # JSON within JSON
            json.dumps(part, ensure_ascii=False)[1:-1],
            repr(part)[1:-1],
            shlex.quote(part).strip("'"),
            urllib.parse.quote(data, safe=""),
            urllib.parse.quote_plus(data, safe=""),
            coded,
            coded.replace("+", "-").replace("/", "_"),
        )
        yield from (text for text in (part, *written) if len(part) >= SHORTEST and len(text) >= SHORTEST)


def of_environment(env: Mapping[str, str]) -> set[str]:
    """The values of an environment's secret variables."""
    return {value for name, value in env.items() if value and is_secret(name)}


def told_in(text: str) -> set[str]:
    """Values in a text that are secrets by name or shape, and random enough to be looked for everywhere else."""
    lines = (line for line in text.splitlines() if _WORTH_A_LOOK.search(line))
    found = (_secret_in(match) for line in lines for rule in _RULES for match in rule.finditer(line))
    return {value for value in found if _RANDOM.fullmatch(value)}


def left_in(data: bytes, values: Iterable[str]) -> Counter[str]:
    """Known secrets that stand in these bytes in any spelling, counted: there must be none."""
    found = Counter[str]()
    for value in values:
        for spelling in set(spellings(value)):
            found[value] += data.count(spelling.encode("utf-8", "surrogateescape"))
    return +found
