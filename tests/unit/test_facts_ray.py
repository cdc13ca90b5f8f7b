"""Ray's node table as values, and what the child decides without Ray."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from shoal.agent.ray_hook import keep_loopback
from shoal.errors import CommandFailed, ConfigError, NotRunning
from shoal.facts import ray_child
from shoal.facts.ray import DrainReply, NodeRow, drain_argv, parse_drain, parse_table, table_argv
from shoal.host.local import LocalHost

HEAD: dict[str, Any] = {
    "node_id": "aa" * 28,
    "address": "127.0.0.1",
    "alive": True,
    "is_head": True,
    "resources": {"CPU": 1.0, "GPU": 2.0},
    "start_time_ms": 1000,
    "death_reason": "",
}
WORKER = HEAD | {"node_id": "bb" * 28, "address": "127.0.0.2", "is_head": False}


def table(*nodes: dict[str, Any]) -> str:
    return json.dumps({"ray": "2.60.0", "python": "3.11.7", "cluster_id": "cc" * 28, "nodes": nodes})


def test_a_table_keeps_every_field_of_every_node() -> None:
    parsed = parse_table(table(HEAD, WORKER))
    assert (parsed.ray, parsed.python, parsed.cluster_id) == ("2.60.0", "3.11.7", "cc" * 28)
    assert parsed.nodes[0] == NodeRow(**HEAD)
    assert [row.gpus for row in parsed.nodes] == [2.0, 2.0]


def test_a_node_without_gpus_offers_none() -> None:
    assert parse_table(table(HEAD | {"resources": {}})).nodes[0].gpus == 0


def test_a_cluster_without_an_id_and_nodes_is_a_table() -> None:
    assert parse_table('{"ray": "2.9", "python": "3.12.1", "cluster_id": null, "nodes": []}').nodes == ()


def test_lines_before_the_document_are_not_read() -> None:
    assert len(parse_table(f"a library says hello\n{table(HEAD)}\n").nodes) == 1


def test_the_newest_alive_node_of_an_address_is_found_among_its_dead() -> None:
    rows = [
        WORKER | {"node_id": "1" * 56, "start_time_ms": 1000},
        WORKER | {"node_id": "2" * 56, "start_time_ms": 3000},
        WORKER | {"node_id": "3" * 56, "start_time_ms": 2000},
        WORKER | {"node_id": "4" * 56, "start_time_ms": 9000, "alive": False, "death_reason": "EXPECTED_TERMINATION"},
    ]
    found = parse_table(table(HEAD, *rows)).alive_at("127.0.0.2")
    assert found is not None
    assert found.node_id == "2" * 56


def test_an_address_with_only_dead_nodes_has_none_alive() -> None:
    assert parse_table(table(WORKER | {"alive": False})).alive_at("127.0.0.2") is None


def test_an_unreachable_gcs_is_no_cluster_and_the_cause_is_told() -> None:
    with pytest.raises(NotRunning) as raised:
        parse_table('{"error": "GCS at h:1: connection refused", "kind": "unreachable"}')
    assert raised.value.why == "GCS at h:1: connection refused"


def test_a_refused_token_is_a_wrong_setting_with_a_fix() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_drain('{"error": "token mismatch: ...", "kind": "token"}')
    assert "token" in raised.value.what
    assert raised.value.fix


@pytest.mark.parametrize("text", ["", "\n", "Traceback", "[]", "null", '"x"', '{"nodes": 1}', table({"node_id": 1})])
def test_garbage_is_a_failed_command_that_shows_the_garbage(text: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        parse_table(text)
    assert raised.value.why == (f"it printed {text.strip()[:200]!r}" if text.strip() else "it printed nothing")


def test_a_drain_is_accepted_or_refused_with_a_reason() -> None:
    assert parse_drain('{"accepted": true, "reason": ""}') == DrainReply(accepted=True)
    assert parse_drain('{"accepted": false, "reason": "busy"}') == DrainReply(accepted=False, reason="busy")


def test_the_child_understands_the_argv_made_for_it() -> None:
    argv = table_argv("/bin/python", "127.0.0.1:29000", wait="127.0.0.2", timeout=2.5)
    assert argv[:3] == ("/bin/python", "-m", "shoal.facts.ray_child")
    args = ray_child.parse_args(argv[3:])
    assert (args.verb, args.address, args.wait, args.timeout) == ("nodes", "127.0.0.1:29000", "127.0.0.2", 2.5)
    assert ray_child.parse_args(table_argv("p", "h:1")[3:]).wait is None

    args = ray_child.parse_args(drain_argv("p", "h:1", "ab" * 28, deadline=30, message="-bye")[3:])
    assert (args.verb, args.node_id, args.deadline) == ("drain", "ab" * 28, 30)
    assert (args.reason, args.message) == ("PREEMPTION", "-bye")


@pytest.mark.parametrize("argv", [["nodes", "nowhere"], ["drain", "h:1", "xyz"], []])
def test_a_wrong_command_line_ends_the_child_with_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ray_child.parse_args(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_token_that_is_promised_and_missing_is_named_before_ray_aborts(tmp_path: Path) -> None:
    path = tmp_path / "token"
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    with pytest.raises(ray_child.GcsError, match="cannot be read: No such file"):
        ray_child.require_token(env)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ray_child.GcsError, match="is empty"):
        ray_child.require_token(env)
    path.write_text("secret\n", encoding="utf-8")
    ray_child.require_token(env)


@pytest.mark.parametrize("env", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_MODE": "disabled"}])
def test_no_token_file_is_asked_for_where_none_is_used(env: dict[str, str]) -> None:
    ray_child.require_token(env | {"RAY_AUTH_TOKEN_PATH": "/nowhere"})


def test_a_refused_token_is_told_by_its_source_and_never_by_its_value() -> None:
    refused = RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect")
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret-value"}
    error = ray_child.told(refused, "h:1", env)
    assert str(error) == "token mismatch: GCS at h:1 refused the token in RAY_AUTH_TOKEN"
    assert error.kind == "token"
    assert "asks for a token" in str(ray_child.told(refused, "h:1", {}))


def test_any_other_error_of_ray_is_told_in_one_line() -> None:
    error = ray_child.told(RuntimeError("Timed out\n  while waiting"), "h:1", {})
    assert (str(error), error.kind) == ("GCS at h:1: Timed out while waiting", "unreachable")


@pytest.mark.parametrize("head", [True, False])
def test_the_hook_makes_ray_keep_addresses(head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    services = ModuleType("ray._private.services")
    services.resolve_ip_for_localhost = lambda host: "10.0.0.1"  # type: ignore[attr-defined]
    private = SimpleNamespace(services=services)
    for name, module in {"ray": ModuleType("ray"), "ray._private": private, services.__name__: services}.items():
        monkeypatch.setitem(sys.modules, name, module)
    keep_loopback(None, head)
    assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"


def test_the_child_takes_its_arguments_before_it_pays_for_ray() -> None:
    seen = "import sys, shoal.facts.ray_child as c; c.parse_args(['nodes', 'h:1']); print('ray' in sys.modules)"
    assert LocalHost().run((sys.executable, "-c", seen), timeout=30).out == "False\n"
