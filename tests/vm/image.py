"""The guests' kernel and first file system: Debian's own kernel package unpacked, and an initramfs of busybox.

The initramfs loads the modules, mounts the machine's own file system read-only over 9p with a layer of memory above it,
and hands over to ``agent.py``. Built once for each kernel, in ``build/vm``.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "vm"
APPLETS = ("sh", "mount", "insmod", "modprobe", "switch_root", "mkdir", "depmod")
MODULES = (
    "configfs crc32_generic crc32c_generic virtio_pci virtio_net virtio_console 9pnet_virtio 9p overlay ib_core "
    "ib_uverbs rdma_ucm ib_umad rdma_rxe veth"
)
WANTED = re.compile(
    r"configfs|crc32|ip6_udp|iw_cm|ib_cm|virtio|/9p|fscache|netfs|overlay|infiniband/(core|sw/rxe)|udp_tunnel|failover"
    r"|veth|/ipv6/"
)
# -E keeps the guest's Python off the host's environment; PATH is what a login shell of root would have.
INIT = """\
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in {modules}; do modprobe $module || echo "no module $module"; done
mkdir -p /lower /rw /new
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /lower
mount -t tmpfs tmpfs /rw; mkdir -p /rw/u /rw/w
mount -t overlay -o lowerdir=/lower,upperdir=/rw/u,workdir=/rw/w overlay /new
for folder in proc sys dev; do mkdir -p /new/$folder; mount --move /$folder /new/$folder; done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec switch_root /new {python} {agent}
"""


def lacking() -> str:
    """What keeps guests from being started here; empty where nothing does."""
    needed = ("qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb", "rdma", "ib_write_bw", "ip")
    missing = [name for name in needed if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _run(*argv: str, cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=300).stdout


def _package() -> str:
    """The name of the newest kernel package, such as linux-image-6.1.0-56-amd64."""
    found = re.search(r"Depends: (linux-image-[0-9]\S+)", _run("apt-cache", "depends", "linux-image-amd64", cwd=ROOT))
    assert found, "apt knows no kernel: apt-get update"
    return found[1]


def kernel() -> Path:
    """The kernel's file; its modules lie beside it, and the initramfs as ``initrd.gz``."""
    package = _package()
    home = FOLDER / package
    if not (home / "initrd.gz").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _run("apt-get", "download", package, cwd=home)
        deb = next(home.glob("*.deb"))
        _run("dpkg-deb", "-x", deb.name, "img", cwd=home)
        deb.unlink()
        _initramfs(home)
    return next((home / "img" / "boot").glob("vmlinuz-*"))


def _initramfs(home: Path) -> None:
    tree = home / "ir"
    version = next((home / "img" / "lib" / "modules").iterdir()).name
    for name in ("bin", "proc", "sys", "dev", "lib/modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(str(shutil.which("busybox")), tree / "bin" / "busybox")
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    modules = tree / "lib" / "modules" / version
    shutil.copytree(home / "img" / "lib" / "modules" / version, modules)
    for file in (modules / "kernel").rglob("*.ko"):
        if not WANTED.search(str(file.relative_to(modules))):
            file.unlink()
    _run("/bin/busybox", "depmod", "-b", str(tree), version, cwd=home)
    init = INIT.format(
        modules=MODULES, python=os.path.realpath(sys.executable), agent=Path(__file__).with_name("agent.py")
    )
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    part = home / "initrd.part"
    with part.open("wb") as out:
        names = subprocess.run(["find", "."], cwd=tree, check=True, capture_output=True).stdout
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, check=True, capture_output=True
        )
        subprocess.run(["gzip", "-1"], input=packed.stdout, stdout=out, check=True)
    shutil.rmtree(tree)
    part.replace(home / "initrd.gz")
