"""Debian packages that the tests with real parts need: an engine for containers, network tools, sshd, virtual machines.

Installed by `make test` where it runs as root on a machine with apt; elsewhere the tests that miss something say so and
are skipped, which `SHOAL_TEST_ALL=1` turns into a failure.
"""

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "network": ("iproute2", "iputils-ping", "ethtool", "kmod", "nftables"),
    "ssh": ("openssh-server", "openssh-client", "sudo"),
    "docker": ("docker.io", "docker-compose"),
    "faults": ("faketime",),
    "rdma": ("rdma-core", "perftest", "ibverbs-providers", "ibverbs-utils", "infiniband-diags"),
    "web": ("chromium", "tmux"),
    "vm": ("qemu-system-x86", "busybox-static", "cpio"),
    "metrics": ("prometheus",),
}


def missing() -> list[str]:
    """Packages of the table that are not installed; all of them where there is no dpkg."""
    wanted = [name for names in PACKAGES.values() for name in names]
    if not shutil.which("dpkg-query"):
        return wanted
    argv = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\n", *wanted]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in done.stdout.splitlines() if line.split()[1:] == ["ii"]}
    return [name for name in wanted if name not in there]


def install(log: Path) -> tuple[list[str], str]:
    """Install what is missing; returns what is missing still, and why. Starts no service."""
    lacking = missing()
    if not lacking:
        return [], ""
    if os.geteuid() or not shutil.which("apt-get"):
        return lacking, "this needs root and apt-get"
    # RUNLEVEL=1 keeps the packages' scripts from starting daemons: tests start their own.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    options = ("-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold")
    with log.open("wb") as out:
        for words in (("update",), ("install", *options, *lacking)):
            subprocess.run(
                ["apt-get", *words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
                timeout=1200,
            )
    return missing(), f"apt-get could not install them: {log}"
