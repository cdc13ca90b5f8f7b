"""A guest: a QEMU machine with soft-RoCE, asked over a virtio port. It is a Host: facts are read as from any other."""

import base64
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Self

from tests.vm import image

from shoal.errors import HostUnreachable, TimedOut
from shoal.host.base import Result

BOOT_SECONDS = 120.0
MEMORY_MB = 1536


class Guest:
    """One guest. Use it as a context manager: it is ended by its process id, whatever happened."""

    def __init__(self, number: int, cable: str) -> None:
        self.name = f"guest-{number}"
        self.number = number
        self._cable = cable
        self._folder = Path(tempfile.mkdtemp(prefix=f"shoal-{self.name}-"))
        self._rest = b""

    def __enter__(self) -> Self:
        kernel = image.kernel()
        self.console = self._folder / "console.log"
        argv = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1",
            "-m", str(MEMORY_MB), "-display", "none", "-no-reboot", "-nodefaults",
            "-kernel", str(kernel), "-initrd", str(kernel.parents[2] / "initrd.gz"),
            "-append", "console=ttyS0 quiet panic=1", "-serial", f"file:{self.console}",
            "-fsdev", "local,id=fs,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=fs,mount_tag=host",
            "-netdev", f"socket,id=n0,{self._cable}",
            "-device", f"virtio-net-pci,netdev=n0,host_mtu=9000,mac=52:54:00:00:00:0{self.number}",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=c0,path={self._folder}/port,server=on,wait=off",
            "-device", "virtserialport,chardev=c0,name=shoal",
        ]  # fmt: skip
        with (self._folder / "qemu.log").open("wb") as log:
            self._qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._port = self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._qemu.kill()
        self._qemu.wait(10)
        self._port.close()
        subprocess.run(["rm", "-rf", str(self._folder)], check=True)

    def _connect(self) -> socket.socket:
        end = time.monotonic() + BOOT_SECONDS
        port = socket.socket(socket.AF_UNIX)
        while time.monotonic() < end and self._qemu.poll() is None:
            try:
                port.connect(f"{self._folder}/port")
            except OSError:
                time.sleep(0.05)
            else:
                return port
        port.close()
        self._qemu.kill()
        raise HostUnreachable(f"{self.name} did not start", why=(self._folder / "qemu.log").read_text())

    def wait(self) -> None:
        """Until its agent says that it is ready."""
        try:
            assert self._line(BOOT_SECONDS) == {"ready": True}
        except TimedOut as error:
            raise HostUnreachable(f"{self.name} did not boot", why=self.console.read_text()[-2000:]) from error

    def _line(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            self._port.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self._port.recv(1 << 20)
            except TimeoutError as error:
                raise TimedOut(f"{self.name} did not answer within {seconds:g} s") from error
            if not data:
                raise HostUnreachable(f"{self.name} has ended", why=self.console.read_text()[-2000:])
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document

    def send(self, *argv: str, timeout: float = 60, input: bytes = b"") -> None:
        """Begin a command; :meth:`answer` has its end."""
        ask = {"argv": argv, "timeout": timeout, "input": base64.b64encode(input).decode()}
        self._asked, self._patience = argv, timeout
        self._port.settimeout(30)
        self._port.sendall(json.dumps(ask).encode() + b"\n")

    def answer(self) -> Result:
        """The end of the command that was sent."""
        told = self._line(self._patience + 30)
        if told["code"] is None:
            raise TimedOut(f"{self.name}: {' '.join(self._asked)} did not end within {self._patience:g} s")
        return Result(self._asked, told["code"], _text(told["out"]), _text(told["err"]))

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60,
        ok: Container[int] = (0,),
        input: str | bytes | None = None,
    ) -> Result:
        """Run a command in the guest."""
        self.send(*argv, timeout=timeout, input=input.encode() if isinstance(input, str) else input or b"")
        return self.answer().require(ok, self.name)

    def sh(self, script: str, timeout: float = 60) -> str:
        """Output of a shell script that must succeed."""
        return self.run(["sh", "-ec", script], timeout=timeout).out


def _text(data: str) -> str:
    return base64.b64decode(data).decode("utf-8", errors="replace")


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def set_up(guest: Guest) -> None:
    """An address on the cable, MTU 9000, and a soft-RoCE device on it; a host name of its own."""
    guest.sh(
        f"hostname {guest.name}; ip link set lo up; ip link set eth0 mtu 9000 up;"
        f"ip addr add 192.168.100.{guest.number}/24 dev eth0; rdma link add rxe0 type rxe netdev eth0"
    )
