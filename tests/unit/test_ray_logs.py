"""Why Ray's own processes ended."""

from pathlib import Path

from shoal.facts.ray_logs import fatal_line, read_fault, version_mismatch

GCS = """\
[2026-11-23 06:22:42,967 I 3611 3611] (gcs_server) event.cc:332: Set ray event level to warning
[2026-11-23 06:22:42,984 C 3611 3611] (gcs_server) gcs_server.cc:951: Unsupported GCS storage type: nonsense
*** StackTrace Information ***
"""


def session(folder: Path, name: str, text: str) -> Path:
    """A temp dir of Ray's with one log."""
    logs = folder / "session_1" / "logs"
    logs.mkdir(parents=True)
    (logs / name).write_text(text)
    (folder / "session_latest").symlink_to(folder / "session_1")
    return folder


def test_the_fatal_line_is_found() -> None:
    """The first critical line tells program and message; lines of other levels do not count."""
    assert fatal_line(GCS) == "gcs_server: Unsupported GCS storage type: nonsense"
    assert fatal_line(GCS.replace(" C 3611", " E 3611")) == ""


def test_a_fault_is_read_from_the_latest_session(tmp_path: Path) -> None:
    """The fault of the GCS is found in the latest session's logs."""
    folder = session(tmp_path, "gcs_server.err", GCS)
    assert read_fault(folder, since=0.0) == "gcs_server: Unsupported GCS storage type: nonsense"


def test_an_older_fault_does_not_count(tmp_path: Path) -> None:
    """What an earlier Ray wrote before this one was started is no fault of this one."""
    assert read_fault(session(tmp_path, "raylet.err", GCS), since=4e9) == ""


def test_no_session_is_no_fault(tmp_path: Path) -> None:
    """Where Ray has written nothing there is no fault."""
    assert read_fault(tmp_path, since=0.0) == ""


def test_a_head_of_another_version_is_one_line() -> None:
    """Ray's five lines about versions become one, with what mends it; other words are none."""
    said = """\
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.54.0
    Python: 3.12.3
This process on node 192.168.100.2 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
    assert version_mismatch(said.replace("node ", "")) == version_mismatch(said)
    assert version_mismatch(said) == (
        "the head has Ray 2.54.0 on Python 3.12.3, this node has Ray 2.60.0 on Python 3.11.7; "
        "set the same SHOAL_IMAGE on both"
    )
    assert version_mismatch("ConnectionError: no") == ""
