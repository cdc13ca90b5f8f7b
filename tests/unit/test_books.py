"""Who is asked about GPUs in Ray's books: shell scripts stand in for the child that loads Ray."""

import io
import json
from pathlib import Path

import pytest

from shoal.engine import books
from shoal.engine.books import Books
from shoal.facts import ray_child
from shoal.log import EventLog
from shoal.spec.env import serve_settings

W, N = "aa" * 28, "bb" * 28
HELD = json.dumps({"nodes": [{"node_id": W, "total": 2.0, "free": 1.0}]})
FREE = json.dumps({"nodes": [{"node_id": W, "total": 2.0, "free": 2.0}]})
TROUBLE = json.dumps({"error": "GCS at 10.0.0.1:6379: it ended", "kind": "unreachable"})
# Answers whether the file holds that one id, once the file is there.
WAITS = f'while [ ! -e "$0" ]; do sleep 0.02; done; [ "$(cat "$0")" = {W} ] && echo \'%s\''


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, *, early: str, plain: str) -> Books:
    """Books whose children are these scripts."""
    (folder / "logs").mkdir()
    monkeypatch.setattr(books, "early_argv", lambda python, head, file, within: ("sh", "-c", early, str(file)))
    monkeypatch.setattr(books, "free_argv", lambda python, head, nodes, within: ("sh", "-c", f"echo '{plain}'"))
    settings = serve_settings({"VLLM_HOST_IP": "10.0.0.1", "SHOAL_STATE_DIR": str(folder)})
    return Books(settings, {}, EventLog(io.StringIO()))


async def test_the_child_that_was_opened_early_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told the ids when the question comes, and names the node; the next question has a child of its own."""
    found = opened(tmp_path, monkeypatch, early=WAITS % HELD, plain=FREE)
    found.open()
    assert await found.held({W: "worker-1"}) == "1 GPU(s) of worker-1 belong to another job of Ray's"
    assert await found.held({W: "worker-1"}) == ""


async def test_free_gpus_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nobody holds one is an answer too."""
    found = opened(tmp_path, monkeypatch, early=WAITS % FREE, plain=HELD)
    found.open()
    assert await found.held({W: "worker-1"}) == ""


@pytest.mark.parametrize(
    "early", [f"echo '{TROUBLE}'; exit 4", f"while [ ! -e \"$0\" ]; do sleep 0.02; done; echo '{TROUBLE}'"]
)
async def test_where_the_early_child_fails_another_asks(
    early: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GCS that it found may have ended since, before the question came or after it."""
    found = opened(tmp_path, monkeypatch, early=early, plain=HELD)
    found.open()
    assert await found.held({W: "worker-1"}) == "1 GPU(s) of worker-1 belong to another job of Ray's"


async def test_without_raylets_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that was opened for nothing is ended."""
    found = opened(tmp_path, monkeypatch, early=f"echo $$ > {tmp_path}/pid; exec sleep 60", plain=HELD)
    found.open()
    assert await found.held({}) == ""
    assert found._early is None


def test_the_child_waits_for_its_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids stand in the file, one in each line; where none comes that is told."""
    file = tmp_path / "ask"
    file.write_text(f"{W}\n{N}")
    assert ray_child.wait_for_question(file) == [W, N]
    monkeypatch.setattr(ray_child, "QUESTION_S", 0.0)
    with pytest.raises(ray_child.GcsError, match="no question came within 0 s"):
        ray_child.wait_for_question(tmp_path / "none")
