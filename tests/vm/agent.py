"""Runs in a guest as its first process: answers requests on the virtio port, one JSON document a line.

Standard library only: it runs under the host's Python, which the guest sees over 9p.
"""

import base64
import json
import os
import signal
import subprocess
import time
from io import RawIOBase
from pathlib import Path
from typing import Any

MOUNTS = (("tmpfs", "/run"), ("tmpfs", "/tmp"), ("tmpfs", "/dev/shm"), ("devpts", "/dev/pts"))


def run(ask: dict[str, Any]) -> dict[str, Any]:
    """One command to its end; at the deadline its process group is killed."""
    argv = ask["argv"]
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except FileNotFoundError:
        return {"code": 127, "out": "", "err": encode(f"{argv[0]}: not found".encode())}
    try:
        out, err = child.communicate(base64.b64decode(ask["input"]), timeout=ask["timeout"])
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        return {"code": None, "out": encode(out), "err": encode(err)}
    return {"code": child.returncode, "out": encode(out), "err": encode(err)}


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def port() -> Path:
    """The device of the virtio port that is called shoal; it may come a moment after its driver."""
    for _ in range(100):
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == "shoal":
                return Path("/dev") / name.parent.name
        time.sleep(0.1)
    raise SystemExit("there is no virtio port called shoal")


def tell(line: RawIOBase, data: bytes) -> None:
    """All of it: the driver of the virtio port takes 32 KiB at a time."""
    while data:
        data = data[line.write(data) or 0 :]


def main() -> None:
    for kind, where in MOUNTS:
        Path(where).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, kind, where], check=True)
    with port().open("r+b", buffering=0) as line:
        line.write(b'{"ready": true}\n')
        rest = b""
        while True:
            while b"\n" not in rest:
                rest += line.read(1 << 16)
            ask, _, rest = rest.partition(b"\n")
            tell(line, json.dumps(run(json.loads(ask))).encode() + b"\n")


if __name__ == "__main__":
    main()
