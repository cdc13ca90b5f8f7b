"""The rules for a node's environment file, whoever reads its variables. Pure: a text in, remarks out."""

import difflib
import re

from shoal.checks import env_nccl
from shoal.checks.env_remarks import Remark, Remarks, Role, Settings, Severity
from shoal.log import is_secret
from shoal.nccl.variables import Version
from shoal.spec.dotenv import DotenvError, parse
from shoal.spec.env_table import BY_NAME, VARIABLES
from shoal.spec.nearest import did_you_mean, nearest
from shoal.spec.variable import Variable, is_address, wrong

OWN = {"agent", "serve"}
PLAIN = ("GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES", "TP_SOCKET_IFNAME")
PLAIN_NAME = re.compile(r"(?!auto$)[\w.]+")
GPUS = re.compile(r"([0-9]+|(GPU|MIG)-[\w/-]+)(\s*,\s*([0-9]+|(GPU|MIG)-[\w/-]+))*")
CURLY = re.compile(r"[\u2018\u2019\u201c\u201d]")
MISSPELT = 0.9


def check(
    text: str, *, role: Role | None = None, nccl: Version | None = None, mode: int | None = None
) -> tuple[Remark, ...]:
    """All remarks on the text of an environment file, by line. ``mode`` is the file's permission bits."""
    try:
        file = parse(text)
    except DotenvError as error:
        return (Remark(error.line, "", "", Severity.FAIL, error.problem, error.fix),)
    told = role or role_of(file.values.get("RAY_MODE", ""))
    settings = Settings(file, told, nccl, mode)
    found = [remark for rule in (*RULES, *env_nccl.RULES) for remark in rule(settings)]
    return tuple(sorted(found, key=lambda remark: remark.line))


def role_of(word: str) -> Role | None:
    """The role that RAY_MODE names."""
    return "head" if word.strip() == "head" else "worker" if word.strip() == "worker" else None


def whole_file(s: Settings) -> Remarks:
    """How the file is written, and who may read it."""
    if s.file.crlf or s.file.bom:
        written = "Windows line ends" if s.file.crlf else "a byte order mark"
        what = f"{written}: Compose drops them, `docker run --env-file` and shells keep them in names and values"
        yield Remark(1, "", "", Severity.WARN, what, r"sed -i '1s/^\xEF\xBB\xBF//; s/\r$//' FILE")
    secrets = [name for name in s.entries if is_secret(name) and s.get(name)]
    if secrets and s.mode is not None and s.mode & 0o004:
        yield s.fail(secrets[0], f"a secret in a file that everybody on the machine may read (mode {s.mode:04o})",
                     "chmod 600 FILE")  # fmt: skip
    quoted = [entry for entry in s.file.entries if entry.quote]
    if quoted:
        what = "the quotes are no part of the value for Compose; `docker run --env-file` would keep them"
        yield s.info(quoted[0].name, what)


def entries(s: Settings) -> Remarks:
    """How single variables are written."""
    for entry in s.file.entries:
        last = s.entries.get(entry.name, entry)
        if entry.inherited:
            what = "has no value here: it is taken from the shell that runs Compose, if that has it"
            yield Remark(entry.line, entry.name, "", Severity.INFO, what, f"{entry.name}=VALUE")
        elif last is not entry and last.line > entry.line:
            differs = Severity.INFO if last.value == entry.value else Severity.WARN
            value = "" if is_secret(entry.name) else entry.value
            yield Remark(entry.line, entry.name, value, differs, f"set again in line {last.line}, which counts",
                         "remove one of the two")  # fmt: skip
        elif entry.missing:
            yield s.warn(entry.name, f"{entry.missing[0]} is not set in this file, and nothing is put in",
                         "set it above, or write $$ for a dollar")  # fmt: skip
        elif CURLY.search(entry.value) or (not entry.quote and entry.value[-1:] in {'"', "'"}):
            yield s.warn(entry.name, "the quotes are part of the value", "write plain quotes around all of it, or none")
        elif not entry.quote and re.search(r"\t#", entry.value):
            yield s.warn(entry.name, "the comment is part of the value: it begins after a blank, not after a tab",
                         "put the comment on a line of its own")  # fmt: skip


def values(s: Settings) -> Remarks:
    """Values that do not fit their variable's type. What NCCL reads is judged by its own rules."""
    for name in s.entries:
        row, value = BY_NAME.get(name), s.get(name)
        if row is None or "nccl" in row.readers or not value or not (problem := wrong(row, value)):
            continue
        say = s.fail if OWN & set(row.readers) else s.warn
        yield say(name, f"{problem}; expected {row.type}", _mend(row, value))


def _mend(row: Variable, value: str) -> str:
    if row.kind == "choice":
        close = nearest(value.lower(), row.choices, count=1)
        return f"{row.name}={close[0]}" if close else f"one of {', '.join(row.choices)}"
    if row.kind == "endpoint" and not value.rpartition(":")[0]:
        return f"{row.name}={value}:6379"
    return f"correct {row.name}: {row.meaning}"


def names(s: Settings) -> Remarks:
    """Names that nobody reads."""
    own = [row.name for row in VARIABLES if row.name.startswith("SHOAL_")]
    for name in s.entries:
        row = BY_NAME.get(name)
        if row is None and name.startswith("SHOAL_"):
            yield s.fail(name, f"not a setting of shoal; {did_you_mean(name, own)}", "correct the name, or remove it")
        elif row is None and not name.startswith("NCCL_"):
            if near := difflib.get_close_matches(name, BY_NAME, n=1, cutoff=MISSPELT):
                yield s.warn(name, f"nothing here reads it; {near[0]} is meant?", f"{near[0]}=...")
        elif row and row.readers == ("nothing",) and not name.startswith("NCCL_"):
            yield s.info(name, row.meaning, "it may be removed")


def node(s: Settings) -> Remarks:
    """What a node must be told, and what contradicts it."""
    mode = s.get("RAY_MODE")
    if s.role and mode in {"head", "worker"} and mode != s.role:
        yield s.fail("RAY_MODE", f"this file is to be a {s.role}'s", f"RAY_MODE={s.role}")
    if not s.mentions("RAY_MODE") and (s.role or s.mentions("VLLM_HOST_IP")):
        yield s.fail("RAY_MODE", "not set: `head` or `worker`", f"RAY_MODE={s.role or 'worker'}")
    if s.role and not s.mentions("VLLM_HOST_IP"):
        yield s.fail("VLLM_HOST_IP", "not set: this node's fabric address", "VLLM_HOST_IP=ADDRESS   # ip -br address")
    if s.get("VLLM_HOST_IP") in {"0.0.0.0", "::"}:  # noqa: S104 (named to be refused)
        yield s.fail("VLLM_HOST_IP", "every address, and not this node's", "VLLM_HOST_IP=ADDRESS   # ip -br address")
    if s.get("RAY_AUTH_TOKEN"):
        yield s.fail("RAY_AUTH_TOKEN", "every task that Ray runs would inherit it",
                     "put it into a file, and set RAY_AUTH_TOKEN_PATH")  # fmt: skip
    yield from _head(s)


def _head(s: Settings) -> Remarks:
    """The address of the head, seen from this node."""
    target, own = s.get("RAY_ADDRESS"), s.get("VLLM_HOST_IP")
    host = target.rpartition(":")[0].strip("[]")
    if s.role == "worker" and not s.mentions("RAY_ADDRESS"):
        yield s.fail("RAY_ADDRESS", "not set: a worker needs the head's ADDRESS:PORT", "RAY_ADDRESS=ADDRESS:6379")
    if s.role == "worker" and host and (host == own or (_here(host) and not _here(own))):
        yield s.fail("RAY_ADDRESS", "points at this worker itself", "RAY_ADDRESS=ADDRESS:6379   # the head's address")
    if s.role == "head" and is_address(host) and is_address(own) and host != own:
        yield s.fail("RAY_ADDRESS", f"points at another machine: this head is {own}", "remove it: a head derives it")


def _here(address: str) -> bool:
    return address.startswith("127.") or address in {"localhost", "::1"}


def plain_names(s: Settings) -> Remarks:
    """Interfaces of Gloo, UCX and TensorPipe: plain names, and the same as NCCL's."""
    nccl = s.get("NCCL_SOCKET_IFNAME").lstrip("=")
    for name in PLAIN:
        value = s.get(name)
        if re.search(r"[=^]", value):
            yield s.fail(name, "takes plain names: `=` and `^` are NCCL's", f"{name}={value.lstrip('=^')}")
        elif name == "GLOO_SOCKET_IFNAME" and value and PLAIN_NAME.fullmatch(nccl) and not value.startswith(nccl):
            yield s.warn(name, f"another interface than NCCL_SOCKET_IFNAME={nccl}", f"{name}={nccl}")


def gpus(s: Settings) -> Remarks:
    """Which GPUs are seen."""
    name = "CUDA_VISIBLE_DEVICES"
    entry = s.entries.get(name)
    if entry is None:
        return
    value = entry.value.strip()
    if not value:
        what = "empty, which hides every GPU; shoal removes it from what it starts, others do not"
        yield s.warn(name, what, "remove the line, or name the GPUs: 0,1")
    elif value == "-1":
        yield s.warn(name, "hides every GPU", "remove the line, or name the GPUs: 0,1")
    elif not GPUS.fullmatch(value):
        what = "no list of indices or UUIDs: CUDA stops at the first word that it does not know"
        yield s.fail(name, what, f"{name}=0,1   # nvidia-smi -L names them")


def worker_variables(s: Settings) -> Remarks:
    """Variables that Ray's workers are to have, and that are not set."""
    name = "VLLM_RAY_WORKER_ENV_VARS"
    listed = [item.strip() for item in s.get(name).split(",") if item.strip()]
    absent = [item for item in listed if not s.mentions(item)]
    if absent and not any(wrong(BY_NAME[name], item) for item in listed):
        yield s.warn(name, f"not set in this file: {', '.join(absent)}", "set them, or take them out of the list")


RULES = (whole_file, entries, values, names, node, plain_names, gpus, worker_variables)
