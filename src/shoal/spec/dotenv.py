"""A ``.env`` as Docker Compose v2 reads it. Nothing is executed, and nothing but the text is looked at.

Compose's rules, from compose-go's ``dotenv`` and ``template``: a byte order mark and the CR of CRLF are dropped, and
``export`` in front. A name ends at ``=`` or ``:``. An unquoted value ends at its line or at `` #``; a quoted one may
span lines. Variables are put in, but not between single quotes. A name alone on its line is taken from the shell.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import ConfigError

BLANK = "\t\v\f\r \x85\xa0"
NAME = re.compile(r"[\w.\-\[\]]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ESCAPE = re.compile(r"\\(?:[abfnrtv$\"\\]|0[0-3][0-7]{2})")
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
DEEPEST = 20
LARGEST = 1 << 20


class DotenvError(ConfigError):
    """A line that Docker Compose would refuse."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}", fix="correct the line; Docker Compose refuses the whole file")
        self.line = line
        self.problem = what


@dataclass(frozen=True)
class Entry:
    """One variable: the value that a container gets, and how it was written."""

    name: str
    value: str
    line: int
    raw: str  # as written after the name, quotes and all
    quote: str = ""
    inherited: bool = False  # a name alone: the shell's value, or none
    missing: tuple[str, ...] = ()  # variables that were put in and are not set


@dataclass(frozen=True)
class Dotenv:
    """A whole file, in its order; a name may occur again, and the last one counts."""

    entries: tuple[Entry, ...]
    crlf: bool = False
    bom: bool = False

    @property
    def values(self) -> dict[str, str]:
        """What a container gets."""
        return {entry.name: entry.value for entry in self.entries if not entry.inherited}


def parse(text: str, shell: Mapping[str, str] | None = None) -> Dotenv:
    """The file's variables. ``shell`` is the environment that Compose would run in; it wins inside ``${...}``.

    Raises:
        DotenvError: Compose would refuse the file.
    """
    reader = _Reader(text.removeprefix("\ufeff").replace("\r\n", "\n"), shell or {})
    while reader.to_statement():
        reader.statement()
    return Dotenv(tuple(reader.entries), crlf="\r\n" in text, bom=text.startswith("\ufeff"))


def read(path: Path) -> tuple[str, int]:
    """The file's text, its line ends as they are, and its permission bits.

    Raises:
        ConfigError: it cannot be read as text.
    """
    try:
        mode, data = path.stat().st_mode & 0o777, path.read_bytes()
        if len(data) > LARGEST:
            raise ConfigError(f"{path} is no environment file: it has more than {LARGEST >> 20} MiB")
        return data.decode(), mode
    except (OSError, ValueError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"cannot read {path}", why=why) from error


class _Reader:
    """A position in the text, and what was read before it."""

    def __init__(self, text: str, shell: Mapping[str, str]) -> None:
        self.entries: list[Entry] = []
        self._text = text
        self._at = 0
        self._shell = shell
        self._seen: dict[str, str] = {}

    @property
    def line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def to_statement(self) -> bool:
        """Go on to the next statement, over blank lines and comments; False at the end."""
        while True:
            self._skip(BLANK + "\n")
            if not self._text.startswith("#", self._at):
                return self._at < len(self._text)
            end = self._text.find("\n", self._at)
            self._at = len(self._text) if end < 0 else end

    def _skip(self, characters: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in characters:
            self._at += 1

    def statement(self) -> None:
        """Read one variable."""
        line = self.line
        name, inherited = self._name(line)
        if inherited:
            self.entries.append(Entry(name, self._shell.get(name, ""), line, "", inherited=True))
            return
        self._skip(BLANK)
        start = self._at
        quote = self._text[start : start + 1]
        value, missing = self._quoted(quote, line) if quote in {'"', "'"} else self._plain(line)
        raw = self._text[start : self._at].rstrip()
        self.entries.append(Entry(name, value, line, raw, quote if quote in {'"', "'"} else "", missing=missing))
        self._seen[name] = value

    def _name(self, line: int) -> tuple[str, bool]:
        """The name in front of ``=`` or ``:``, and whether it stands alone."""
        if exported := re.compile(r"export[\t\v\f\r ]+").match(self._text, self._at):
            self._at = exported.end()
        end = min((at for at in map(self._find, "=:\n") if at >= 0), default=len(self._text))
        alone = end == len(self._text) or self._text[end] == "\n"
        written = self._text[self._at : end].strip(BLANK)
        shown = written.partition("\n")[0][:40]
        if any(blank in written for blank in BLANK):
            raise DotenvError(line, f"a name cannot contain a space: {shown!r}")
        if not written or not NAME.fullmatch(written):
            raise DotenvError(line, f"no variable's name: {shown!r}")
        self._at = min(end + 1, len(self._text))
        return written, alone

    def _find(self, character: str) -> int:
        return self._text.find(character, self._at)

    def _plain(self, line: int) -> tuple[str, tuple[str, ...]]:
        end = self._find("\n")
        end = len(self._text) if end < 0 else end
        written = self._text[self._at : end]
        self._at = end
        return self._expand(written.partition(" #")[0].rstrip(), line)

    def _quoted(self, quote: str, line: int) -> tuple[str, tuple[str, ...]]:
        """A value between quotes; a backslash keeps the quote after it."""
        at = self._at + 1
        while at < len(self._text) and self._text[at] != quote:
            at += 2 if self._text[at] == "\\" else 1
        if at >= len(self._text):
            raise DotenvError(line, f"the quote {quote} is not closed")
        inside = self._text[self._at + 1 : at].replace("\\" + quote, quote)
        self._at = at + 1
        if quote == "'":
            return inside, ()
        return self._expand(ESCAPE.sub(_unescape, inside), line)

    def _expand(self, text: str, line: int) -> tuple[str, tuple[str, ...]]:
        missing: list[str] = []
        value = _Template(self._seen | dict(self._shell), missing, line).fill(text)
        return value, tuple(dict.fromkeys(missing))


def _unescape(match: re.Match[str]) -> str:
    code = match[0][1:]
    if code == "$":
        return "$$"  # the template's own word for a dollar
    return chr(int(code, 8)) if code.startswith("0") else ESCAPES[code]


@dataclass(frozen=True)
class _Template:
    """Puts variables into a text: ``$A``, ``${A}``, ``${A:-else}``, ``${A:+instead}``, ``${A:?error}``, ``$$``."""

    known: Mapping[str, str]
    missing: list[str]
    line: int

    def fill(self, text: str, depth: int = 0) -> str:
        """The text with every variable put in."""
        if depth > DEEPEST:
            raise DotenvError(self.line, "variables are nested too deep")
        out, at = [], 0
        while (dollar := text.find("$", at)) >= 0:
            out.append(text[at:dollar])
            value, at = self._one(text, dollar + 1, depth)
            out.append(value)
        return "".join((*out, text[at:]))

    def _one(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """The value of what follows a dollar, and where the text goes on."""
        if text.startswith("$", at):
            return "$", at + 1
        if plain := VARIABLE.match(text, at):
            return self._value(plain[0]), plain.end()
        end = _closing(text, at) if text.startswith("{", at) else -1
        name = VARIABLE.match(text, at + 1)
        if end < 0 or name is None or name.end() > end:
            raise DotenvError(self.line, f"a dollar that names no variable in {text[:60]!r}; a dollar alone is $$")
        return self._braced(name[0], text[name.end() : end], depth), end + 1

    def _value(self, name: str) -> str:
        if name not in self.known:
            self.missing.append(name)
        return self.known.get(name, "")

    def _braced(self, name: str, rest: str, depth: int) -> str:
        if not rest:
            return self._value(name)
        colon = rest.startswith(":")
        sign, other = rest[colon : colon + 1], rest[colon + 1 :]
        there = bool(self.known.get(name)) if colon else name in self.known
        if sign == "-":
            return self.known[name] if there else self.fill(other, depth + 1)
        if sign == "+":
            return self.fill(other, depth + 1) if there else ""
        if sign == "?" and there:
            return self.known[name]
        raise DotenvError(self.line, f"{name} is not set: {other}" if sign == "?" else f"no form of ${{{name}}}")


def _closing(text: str, at: int) -> int:
    """Where the brace at ``at`` is closed, or -1."""
    depth = 0
    for here in range(at, len(text)):
        if text[here] == "{" and text[here - 1] == "$":
            depth += 1
        elif text[here] == "}":
            depth -= 1
            if depth == 0:
                return here
    return -1
