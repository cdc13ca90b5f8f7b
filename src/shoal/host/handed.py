"""Files and processes of the machine that ``hand.py`` works on. It is sent along: standard library of 3.6 only."""

import fnmatch
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional, Set

SHM = "/dev/shm"
# What vLLM leaves when its processes are killed: message queue, CPU collectives, semaphores.
SHM_NAMES = ("psm_*", "*-cpushm_*", "sem.mp-*", "sem.loky-*")

AT_BOOT = "@reboot "
CRONS = ("cron", "crond", "fcron")


def text_of(path: str) -> Optional[str]:
    """Text of a file; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def json_of(path: str) -> Dict[str, Any]:
    """A JSON object in a file; empty where there is none."""
    try:
        found = json.loads(text_of(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(path: str, data: bytes, mode: int) -> None:
    """Write a file in one step; until it is whole only its owner can read it."""
    handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix="." + os.path.basename(path) + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, mode)
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise


def link(target: str, path: str) -> None:
    """Let ``path`` lead to ``target``, in one step."""
    part = "%s.%d.part" % (path, os.getpid())
    if os.path.lexists(part):
        os.unlink(part)
    os.symlink(target, part)
    os.rename(part, path)


def boot_id() -> str:
    """The machine's present boot."""
    return (text_of("/proc/sys/kernel/random/boot_id") or "").strip()


def stat_of(pid: int) -> List[str]:
    """What follows the name in ``/proc/PID/stat``; empty where there is no such process, or it only waits to go."""
    fields = (text_of("/proc/%d/stat" % pid) or "").rpartition(")")[2].split()
    return fields if len(fields) > 19 and fields[0] not in ("Z", "X") else []


def ticks_of(pid: int) -> int:
    """When a process started, in clock ticks since the boot; -1 where it is gone."""
    fields = stat_of(pid)
    return int(fields[19]) if fields else -1


def lives(unit: Dict[str, Any]) -> bool:
    """Whether that very process still runs: an id alone may have been given to another."""
    born = ticks_of(unit["pid"]) if unit.get("pid") and unit.get("boot") == boot_id() else -1
    return born != -1 and born == unit.get("ticks")


def unit_file(root: str, name: str) -> str:
    """Where it is written down what runs."""
    return "%s/state/%s.unit" % (root, name)


def all_pids() -> List[int]:
    """Every process."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def family(pid: int) -> List[int]:
    """A process and all that descend from it."""
    parents = {one: int(fields[1]) for one in all_pids() for fields in [stat_of(one)] if fields}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def own_line() -> Set[int]:
    """This process and those above it."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = stat_of(pid)
        pid = int(fields[1]) if fields else 0
    return found


def living_in(folders: List[str]) -> List[int]:
    """Processes that live in or print into one of these folders; one with a terminal is somebody who looks at it."""
    roots = tuple(os.path.realpath(folder) + "/" for folder in folders)
    found = []
    for pid in all_pids():
        for place in ("cwd", "fd/1", "fd/2"):
            try:
                where = os.readlink("/proc/%d/%s" % (pid, place)) + "/"
            except OSError:
                continue
            if where.startswith(roots):
                found.append(pid)
                break
    mine = own_line()
    return [pid for pid in found if pid not in mine and stat_of(pid)[4:5] == ["0"]]


def end(pids: List[int], grace: float) -> List[int]:
    """TERM, then KILL after ``grace`` seconds; those that are still there."""
    births = {pid: ticks_of(pid) for pid in pids}

    def left() -> List[int]:
        return [pid for pid, born in births.items() if born != -1 and ticks_of(pid) == born]

    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for pid in left():
            try:
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
            except OSError:
                pass
        until = time.time() + seconds
        while left() and time.time() < until:
            time.sleep(0.05)
    return left()


def shared_memory() -> List[str]:
    """Segments by vLLM's names, of our user, that no living process uses: removed."""
    names = os.listdir(SHM) if os.path.isdir(SHM) else []
    found = [SHM + "/" + name for name in names if any(fnmatch.fnmatch(name, form) for form in SHM_NAMES)]
    used = in_use(SHM + "/") if found else set()
    return [path for path in found if remove_unused(path, used)]


def remove_unused(path: str, used: Set[int]) -> bool:
    """Remove a file of ours that nobody uses; one that goes by itself at this moment is not told."""
    try:
        about = os.stat(path)
        if about.st_uid != os.getuid() or about.st_ino in used:
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def in_use(folder: str) -> Set[int]:
    """Inodes of files in a folder that some process has mapped or open, as far as we may look.

    Inodes, for a semaphore is mapped under the name that it was made by: glibc gives it its own only afterwards.
    """
    used = set()  # type: Set[int]
    for pid in all_pids():
        maps = (text_of("/proc/%d/maps" % pid) or "").splitlines()
        # address perms offset dev inode path
        used.update(int(line.split(None, 5)[4]) for line in maps if folder in line)
        place = "/proc/%d/fd/" % pid
        try:
            used.update(
                os.stat(place + handle).st_ino
                for handle in os.listdir(place)
                if os.readlink(place + handle).startswith(folder)
            )
        except OSError:
            continue
    return used


def digest(path: str) -> str:
    """The sha256 of a file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def said(argv: List[str], seconds: float = 20.0, text: str = "") -> Any:
    """Code and output of a command that reads ``text``; code 127 where it is not there."""
    pipe = subprocess.PIPE
    try:
        done = subprocess.run(argv, check=False, input=text.encode(), stdout=pipe, stderr=pipe, timeout=seconds)
    except OSError as error:
        return 127, "", str(error)
    except subprocess.TimeoutExpired:
        return 124, "", "%s did not answer within %g s" % (argv[0], seconds)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def crontab() -> Any:
    """The lines of the user's crontab, or why there can be none."""
    code, out, err = said(["crontab", "-l"])
    if code == 0:
        return out.splitlines(), ""
    if code == 127:
        return [], "it has no cron"
    # Anything else than this may hide lines of the user's, which a new crontab would take away.
    return [], "" if "no crontab" in (out + err).lower() else (err or out).strip() or "crontab -l fails"


def cron_mark(root: str) -> str:
    """How the line of a cluster ends in a crontab."""
    return "  # shoal " + root


def at_boot(root: str) -> Dict[str, Any]:
    """What the user's crontab starts at a boot for this cluster, and why not, where it cannot."""
    lines, why = crontab()
    names = {(text_of("/proc/%d/comm" % pid) or "").strip() for pid in all_pids()}
    if not why and not names.intersection(CRONS):
        why = "its cron does not run"
    end = cron_mark(root)
    found = [line[len(AT_BOOT) : -len(end)] for line in lines if line.startswith(AT_BOOT) and line.endswith(end)]
    return {"asked": True, "why": why, "command": found[-1] if found else ""}


def set_at_boot(root: str, command: str) -> str:
    """Let the crontab start this at a boot, or nothing; why not, where it cannot."""
    lines, why = crontab()
    if why:
        return str(why) if command else ""
    kept = [line for line in lines if not line.endswith(cron_mark(root))]
    wanted = kept + ([AT_BOOT + command + cron_mark(root)] if command else [])
    if wanted == lines:
        return ""
    argv = ["crontab", "-"] if wanted else ["crontab", "-r"]
    code, out, err = said(argv, text="".join(line + "\n" for line in wanted))
    return (err or out).strip() or "crontab ended with code %d" % code if code else ""
