"""``shoal bundle`` as a user calls it, over a real sshd: secrets planted on the host are looked for in the archive."""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.conftest import SshLab
from tests.sshd import SBIN

from shoal.host import capture
from shoal.host.ssh import SshHost
from shoal.log import MASK

API, TOKEN, HUB, WORD = "q9-Zk_3rT5yBn2LpX", "5e" * 32, "hf_PlantedPlantedPlanted1", "open sesame, please"
HERE = "mine-4711-of-the-chair"
HOSTS = "cluster: planted\nruntime: process\npython: /usr/bin/python3\nhosts:\n  - {name: gpu-1, ssh: plain}\n"
ROOT = ".local/share/shoal/planted"
PLANTED = {
    "state/api.key": f"{API}\n",
    "state/ray.token": f"{TOKEN}\n",
    "state/journal/gpu-1.jsonl": f'{{"time": 1, "node": "gpu-1", "kind": "x", "words": "sent {TOKEN}"}}\n',
    "logs/agent.log": f"10:00:00 UP  a client came with {API}\nAuthorization: Bearer {API}\n",
    "logs/engine.log": f"args: ['--hf-token', '{HUB}', '--port', '8000']\nit said {WORD} again\n",
    "releases/1/.env": f"VLLM_HOST_IP=127.0.0.1\nHF_TOKEN={HUB}\nDB_PASSWORD='{WORD}'\n",
}


@pytest.fixture
def host(ssh_lab: SshLab) -> Iterator[SshHost]:
    """A host with a release, whose files and a command line hold secrets."""
    host = ssh_lab.host()
    home = host.run(["sh", "-c", "echo ~"], timeout=20).out.strip()
    for name, text in PLANTED.items():
        host.run(["mkdir", "-p", f"{home}/{ROOT}/{name}/.."], timeout=20)
        host.run(["rmdir", f"{home}/{ROOT}/{name}"], timeout=20)
        host.write(f"{home}/{ROOT}/{name}", text, mode=0o600)
    host.run(["ln", "-sfn", "releases/1", f"{home}/{ROOT}/current"], timeout=20)
    yield host
    host.run(["rm", "-r", f"{home}/{ROOT}"], timeout=20)


@pytest.mark.usefixtures("host")
def test_no_planted_secret_is_in_the_archive(ssh_lab: SshLab, tmp_path: Path) -> None:
    """Files of all kinds and a running program's command line hold secrets; the archive has the files without them."""
    (tmp_path / "shoal.yaml").write_text(HOSTS)
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh", path=SBIN)} -F {ssh_lab.config} "$@"\n')
    ssh.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SHOAL_STATE_DIR": str(tmp_path / "state")}
    argv = [sys.executable, "-m", "shoal", "bundle", "-f", "shoal.yaml", "-o", "out.tar.gz"]
    with subprocess.Popen([sys.executable, "-c", "input()", "vllm.entrypoints", "--api-key", API], stdin=-1) as program:
        done = subprocess.run(
            argv, env={**env, "MY_TOKEN": HERE}, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        program.kill()
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["judge it: shoal doctor --from out.tar.gz"]), done
    data = gzip.decompress((tmp_path / "out.tar.gz").read_bytes())
    assert [word for word in (API, TOKEN, HUB, WORD, HERE) if word.encode() in data] == []
    for said in (
        f"args: ['--hf-token', '{MASK}', '--port', '8000']\nit said {MASK} again\n",
        f"VLLM_HOST_IP=127.0.0.1\nHF_TOKEN={MASK}\nDB_PASSWORD='{MASK}'\n",
        f'"words": "sent {MASK}"',
        f"a client came with {MASK}\nAuthorization: {MASK}\n",
        f"vllm.entrypoints --api-key {MASK}",
        "nodes/gpu-1/state/api.key: it is a secret\n",
    ):
        assert said.encode() in data
    assert [one.name for one in capture.load(tmp_path / "out.tar.gz")] == ["gpu-1"]
