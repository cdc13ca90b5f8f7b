"""A support archive out of gathered files: secrets taken out, and a page that says what is in it. Pure."""

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from shoal.spec import dotenv
from shoal.spec.redact import Redactor, left_in, of_environment, told_in

README = "README.txt"
PAGE = """\
A support archive of the cluster {cluster}, made by shoal {version} at {taken}.

status.json      the cluster's status, as `shoal status --json`
plan/            the cluster file, and the plan that was carried out
nodes/NAME/      one node: what the doctor reads (fs/, commands.json), logs/, state/ with journal and evidence, release/

Judge it with `shoal doctor --from ARCHIVE`, and unpacked with `shoal explain nodes/NAME/logs`.

Secrets were taken out: in {masked} place(s) now stands {mask}. Looked for were, in every file: the API key, Ray's token
and the hub's, values of variables with a secret's name, values beside such a name in logs and command lines, and tokens
of known form. Names, addresses, and questions to the model where a log has them, are still there: look before you send.
"""


LEADS_OUT = "its name leads out of the archive"


@dataclass(frozen=True)
class Bundle:
    """The archive's files and links by name, what was left out and why, and how many values were masked."""

    files: Mapping[str, bytes]
    links: Mapping[str, str]
    left: Mapping[str, str]
    masked: int


def assemble(files: Mapping[str, bytes], links: Mapping[str, str], secrets: Iterable[str]) -> Bundle:
    """The files without secrets: those that are known, and those that any of the files tells."""
    known = {value.strip() for value in secrets if value.strip()}
    for name, data in files.items():
        text = data.decode("utf-8", "replace")
        known |= told_in(text) | (_dotenv(text) if PurePosixPath(name).name.startswith(".env") else set())
    redactor = Redactor(known)
    kept, left = dict[str, bytes](), dict[str, str]()
    for name, data in files.items():
        if _leads_out(name, links):
            left[redactor.text(name)] = LEADS_OUT
            continue
        clean, called = redactor.data(data), redactor.text(name)
        if left_in(clean, known):
            left[called] = "a secret stood in it in a form that could not be taken out"
        else:
            kept[called] = clean
    within = {name: target for name, target in links.items() if not _leads_out(name, links)}
    left |= {redactor.text(name): LEADS_OUT for name in links if name not in within}
    targets = {redactor.text(name): redactor.text(target) for name, target in within.items()}
    return Bundle(kept, targets, left, redactor.masked)


def _leads_out(name: str, links: Mapping[str, str]) -> bool:
    """Whether a name would be unpacked elsewhere: a host that is not to be trusted may send any, or go by a link."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\0" in name or any(str(one) in links for one in path.parents)


def _dotenv(text: str) -> set[str]:
    """The secrets of an environment file, as Docker Compose reads it."""
    try:
        return of_environment(dotenv.parse(text).values)
    except dotenv.DotenvError:
        return set()


def page(bundle: Bundle, *, cluster: str, version: str, taken: str, lost: Sequence[str]) -> str:
    """What stands in README.txt."""
    text = PAGE.format(cluster=cluster, version=version, taken=taken, masked=bundle.masked, mask="********")
    left = [f"  {name}: {why}" for name, why in sorted(bundle.left.items())]
    parts = [("Not reached:", [f"  {line}" for line in lost]), ("Left out:", left)]
    return text + "".join(f"\n{title}\n" + "\n".join(lines) + "\n" for title, lines in parts if lines)


def pack(files: Mapping[str, bytes], links: Mapping[str, str], top: str, taken: float) -> bytes:
    """The archive: one folder with all of it, readable by its owner only."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mtime, info.mode = len(data), int(taken), 0o600
            tar.addfile(info, io.BytesIO(data))
        for name, target in sorted(links.items()):
            info = tarfile.TarInfo(f"{top}/{name}")
            info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, int(taken)
            tar.addfile(info)
    return gzip.compress(out.getvalue(), mtime=0)
