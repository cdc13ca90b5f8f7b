"""What limits a process there, and the Docker engine."""

import re
from collections.abc import Iterator
from typing import Any

from shoal.facts.container import ContainerFacts, DockerFacts, Image
from shoal.facts.parse.text import document, first_line, missing, output, rows, string, whole
from shoal.host.snapshot import Reply, Snapshot

CGROUP = "/sys/fs/cgroup"
# Linux capabilities by bit (include/uapi/linux/capability.h).
_BITS = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = tuple(_BITS.split())
SECCOMP = {"0": "disabled", "1": "strict", "2": "filter"}
LIBRARIES = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
)
PACKAGES = "/usr/lib/python3/dist-packages"
PROVIDER = re.compile(r"lib\w+-rdmav\d+\.so")


def parse_container(snapshot: Snapshot) -> ContainerFacts:
    """The container that the snapshot was taken in, or what a process on the host has."""
    status = snapshot.read("/proc/self/status")
    pids = snapshot.word(f"{CGROUP}/pids.max") or snapshot.word(f"{CGROUP}/pids/pids.max")
    found = list(_libraries(snapshot))
    return ContainerFacts(
        inside=_inside(snapshot),
        capabilities=_capabilities(status),
        seccomp=SECCOMP.get(_field(status, "Seccomp")),
        apparmor=(snapshot.word("/proc/self/attr/current") or "").strip("\0") or None,
        host_network=_host_network(snapshot),
        user_namespace=_user_namespace(snapshot.read("/proc/self/uid_map")),
        pids_max=whole(pids),
        pids_limited=None if not pids else pids != "max",
        rdma_max=snapshot.word(f"{CGROUP}/rdma.max"),
        memory_max=_memory(snapshot),
        pci_visible=_pci(snapshot),
        libibverbs=_libibverbs(snapshot, found),
        providers=_providers(snapshot, found),
    )


def _inside(snapshot: Snapshot) -> str | None:
    """By the marks that engines leave; empty on a host, None where nobody looked for them."""
    marks = (
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
        ("/var/run/secrets/kubernetes.io", "kubernetes"),
    )
    there = [kind for path, kind in marks if snapshot.exists(path)]
    if there:
        return there[-1]
    cgroup = snapshot.read("/proc/1/cgroup") or ""
    found = re.search(r"/(docker|kubepods|libpod|lxc)\b", cgroup)
    if found:
        return {"kubepods": "kubernetes", "libpod": "podman"}.get(found.group(1), found.group(1))
    return "" if snapshot.exists("/.dockerenv") is False else None


def _field(status: str | None, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\S+)", status or "", re.MULTILINE)
    return found.group(1) if found else ""


def _capabilities(status: str | None) -> frozenset[str] | None:
    """Effective ones, by the bits of CapEff."""
    word = _field(status, "CapEff")
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", word):
        return None
    bits = int(word, 16)
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1)


def _host_network(snapshot: Snapshot) -> bool | None:
    """Whether this network namespace is that of process 1; only root may compare, and only outside a PID namespace."""
    own, first = snapshot.target("/proc/self/ns/net"), snapshot.target("/proc/1/ns/net")
    return own == first if own and first and not _inside(snapshot) else None


def _user_namespace(text: str | None) -> bool | None:
    """Whether users are mapped: outside of a user namespace, 0 to the highest are themselves."""
    words = (text or "").split()
    return words[:3] != ["0", "0", "4294967295"] if len(words) >= 3 else None


def _memory(snapshot: Snapshot) -> int | None:
    value = whole(snapshot.word(f"{CGROUP}/memory.max"))
    value = whole(snapshot.word(f"{CGROUP}/memory/memory.limit_in_bytes")) if value is None else value
    # The first version of control groups writes "no limit" as the highest number of pages.
    return None if value is None or value >= 1 << 62 else value


def _pci(snapshot: Snapshot) -> bool | None:
    names = snapshot.list("/sys/bus/pci/devices")
    return None if names is None else bool(names)


def _libraries(snapshot: Snapshot) -> Iterator[str]:
    """Paths of shared libraries: files that were seen, and what ``ldconfig -p`` knows."""
    for folder in LIBRARIES:
        for name in (
            *(snapshot.list(folder) or ()),
            *(f"libibverbs/{item}" for item in snapshot.list(f"{folder}/libibverbs") or ()),
        ):
            if ".so" in name:
                yield f"{folder}/{name}"
    yield from re.findall(r"=> (/\S+)$", output(snapshot, "ldconfig", "-p") or "", re.MULTILINE)


def _looked(snapshot: Snapshot) -> bool:
    cached = any(reply.code == 0 for _, reply in snapshot.replies_of("ldconfig", "-p"))
    return cached or all(snapshot.was_looked_at(f"{folder}/libibverbs.so.1") for folder in LIBRARIES[:3])


def _libibverbs(snapshot: Snapshot, found: list[str]) -> str | None:
    path = next((item for item in found if item.rpartition("/")[2].startswith("libibverbs.so.")), None)
    return path or ("" if _looked(snapshot) else None)


def _providers(snapshot: Snapshot, found: list[str]) -> tuple[str, ...] | None:
    names = sorted({item.rpartition("/")[2] for item in found})
    providers = tuple(name for name in names if PROVIDER.match(name))
    return providers or (() if _looked(snapshot) and snapshot.was_looked_at(f"{LIBRARIES[0]}/libibverbs") else None)


def parse_docker(snapshot: Snapshot) -> DockerFacts:
    """The Docker engine, as ``docker info`` and its relatives describe it."""
    absent = missing(snapshot, "docker")
    info, reply = _info(snapshot)
    toolkit = re.search(r"version\s+v?(\d[\w.-]*)", output(snapshot, "nvidia-ctk") or "")
    return DockerFacts(
        installed=None if absent is None else not absent,
        version=_version(snapshot, info),
        running=None if reply is None or reply.code == 127 else bool(info),
        trouble=_trouble(reply, info),
        runtimes=tuple(info["runtimes"].split()) if "runtimes" in info else None,
        default_runtime=info.get("default runtime"),
        compose=_compose(snapshot),
        cgroup_driver=info.get("cgroup driver"),
        toolkit=toolkit.group(1) if toolkit else "" if missing(snapshot, "nvidia-ctk") else None,
        cdi=_cdi(snapshot),
        images=_images(snapshot),
    )


def _info(snapshot: Snapshot) -> tuple[dict[str, str], Reply | None]:
    """``docker info`` as words by the names of its plain form, whatever form it was asked in."""
    last = None
    for argv, reply in snapshot.replies_of("docker", "info"):
        last = reply
        told = document(reply.out)
        if told:
            return _from_json(told), reply
        plain = dict(re.findall(r"^\s*([A-Z][\w ]*?): ?(.*)$", reply.out, re.MULTILINE))
        words = {name.lower(): value.strip() for name, value in plain.items()}
        if "server version" in words:
            return words, reply
        if reply.code == 0 and any("Runtimes" in word for word in argv):
            return {"runtimes": " ".join(re.findall(r"[\w.]{3,}", reply.out))}, reply
    return {}, last


def _from_json(told: dict[str, Any]) -> dict[str, str]:
    named = {"ServerVersion": "server version", "DefaultRuntime": "default runtime", "CgroupDriver": "cgroup driver"}
    words = {name: told[key] for key, name in named.items() if isinstance(told.get(key), str) and told[key]}
    if isinstance(told.get("Runtimes"), dict):
        words["runtimes"] = " ".join(map(str, told["Runtimes"]))
    return words


def _trouble(reply: Reply | None, info: dict[str, str]) -> str:
    if reply is None or info or reply.code == 127:
        return ""
    said = re.search(
        r"^(?:ERROR: )?(.*(?:denied|Cannot connect|did not end).*)$", f"{reply.err}\n{reply.out}", re.MULTILINE
    )
    return said.group(1).strip() if said else first_line(reply.err) or ""


def _version(snapshot: Snapshot, info: dict[str, str]) -> str | None:
    said = re.search(
        r"version (\d[\w.+~-]*)", output(snapshot, "docker", "--version") or output(snapshot, "docker", "-v") or ""
    )
    return info.get("server version") or (said.group(1) if said else None)


def _compose(snapshot: Snapshot) -> str | None:
    for program, *words in (
        ("docker", "compose", "version"),
        ("docker-compose", "version"),
        ("docker-compose", "--version"),
    ):
        found = re.search(r"v?(\d+\.\d+[\w.+~-]*)", output(snapshot, program, *words) or "")
        if found:
            return found.group(1)
    packages = (re.match(r"docker_compose-(\d+(?:\.\d+)*)", name) for name in snapshot.list(PACKAGES) or ())
    return next((found.group(1) for found in packages if found), None)


def _cdi(snapshot: Snapshot) -> bool | None:
    """Whether there is a CDI specification for NVIDIA's GPUs."""
    folders = [snapshot.list(folder) for folder in ("/etc/cdi", "/var/run/cdi")]
    if None in folders:
        return None
    return any("nvidia" in name for names in folders for name in names or ())


def _images(snapshot: Snapshot) -> tuple[Image, ...] | None:
    """``docker image inspect`` as JSON: config digest and layers."""
    for _, reply in snapshot.replies_of("docker", "inspect"):
        if reply.code == 0:
            return tuple(_image(row) for row in rows(reply.out))
    text = next((reply.out for _, reply in snapshot.replies_of("docker", "images") if reply.code == 0), None)
    if text is None:
        return None
    lines = [line.split("\t") for line in text.splitlines()]
    return tuple(Image(line[0], line[1]) for line in lines if len(line) == 2)


def _image(row: dict[str, Any]) -> Image:
    tags, root = row.get("RepoTags"), row.get("RootFS")
    name = string(tags[0]) if isinstance(tags, list) and tags else None
    layers = root.get("Layers") if isinstance(root, dict) else None
    return Image(name or "", string(row.get("Id")) or "", tuple(map(str, layers)) if isinstance(layers, list) else ())
