"""The supervisor as a program: its key file."""

import stat
from pathlib import Path
from typing import Any

import pytest

from shoal.agent.program import EX_CONFIG
from shoal.engine import main as program
from shoal.engine.launch import Request


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """What a head's container sets, with a plan of an engine."""
    plan = tmp_path / "engine.json"
    plan.write_text(Request("m", "http://192.168.100.1:8000/v1", (), {}).to_json())
    return {
        "VLLM_HOST_IP": "192.168.100.1",
        "SHOAL_STATE_DIR": str(tmp_path),
        "SHOAL_ENGINE_PLAN": str(plan),
        "SHOAL_API_KEY_FILE": str(tmp_path / "state/api.key"),
    }


def test_the_first_start_makes_the_key(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the key file is missing it is made, readable by its owner only, and the engine is asked with its key."""
    asked = []

    async def serve(settings: Any, key: str, *rest: Any) -> int:
        asked.append(key)
        return 0

    monkeypatch.setattr(program, "serve", serve)
    file = Path(env["SHOAL_API_KEY_FILE"])
    assert program.main(env) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert asked == [file.read_text().strip()]


def test_a_key_that_others_read_is_refused(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A key file that is open to others ends the start with 78."""
    file = Path(env["SHOAL_API_KEY_FILE"])
    file.parent.mkdir()
    file.write_text("secret\n")
    file.chmod(0o644)
    assert program.main(env | {"SHOAL_RUN_ID": "x"}) == EX_CONFIG
    said = capsys.readouterr().out
    assert f"chmod 600 {file}" in said
    assert "secret" not in said
