"""A full disk is told once, and told again when it has room."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from shoal.agent.disk import Disk, full
from shoal.log import EventLog


def test_a_full_disk_is_told_once_and_then_that_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is told, the same again is not."""
    left = 100 << 20
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=left >> 12, f_frsize=4096))
    out = io.StringIO()
    disk = Disk(Path("/state"), EventLog(out, render=lambda event: f"{event.level} {event.message}"))
    for left in (100 << 20, 0, 8192, 100 << 20):  # noqa: B007 (read by the stand-in)
        disk.look()
    assert out.getvalue().splitlines() == [
        "warn the disk of /state is full: 0 KiB left",
        "info the disk of /state has room again",
    ]


def test_a_folder_that_cannot_be_asked_is_not_called_full(tmp_path: Path) -> None:
    """What is not known is not said."""
    assert full(tmp_path / "none") == ""
