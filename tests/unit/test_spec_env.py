"""Settings from the environment: what is accepted, and how everything else is refused."""

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConfigError
from shoal.log import is_secret
from shoal.spec.env import TABLE, AgentSettings, ServeSettings, agent_settings, serve_settings
from shoal.spec.env_table import VARIABLES
from shoal.spec.variable import Variable, wrong

HEAD = {"RAY_MODE": "head", "VLLM_HOST_IP": "192.168.100.1"}
WORKER = {"RAY_MODE": "worker", "VLLM_HOST_IP": "192.168.100.2", "RAY_ADDRESS": "192.168.100.1:6379"}
SERVE = {"VLLM_HOST_IP": "192.168.100.1"}


def refused(env: Mapping[str, str], serve: bool = False) -> str:
    """What is said of a wrong environment."""
    with pytest.raises(ConfigError) as raised:
        _ = serve_settings(env) if serve else agent_settings(env)
    return raised.value.what


def test_a_head_needs_its_mode_and_its_address() -> None:
    """All other settings of the agent have a default."""
    assert agent_settings(HEAD) == AgentSettings(
        address="192.168.100.1",
        ray_address="",
        name="",
        agent_port=8700,
        join_timeout=120.0,
        restarts=5,
        restart_window=600.0,
        run_id="",
        log="story",
        state_dir="",
        cache_dir="",
        mode="head",
        num_gpus=None,
        num_cpus=None,
        port_base=27000,
        temp_dir="/tmp/ray",
        object_store_mb=200,
        lost_after=30.0,
    )


def test_the_supervisor_needs_an_address() -> None:
    """All other settings of the supervisor have a default."""
    assert serve_settings(SERVE) == ServeSettings(
        address="192.168.100.1",
        ray_address="",
        name="",
        agent_port=8700,
        join_timeout=120.0,
        restarts=5,
        restart_window=600.0,
        run_id="",
        log="story",
        state_dir="",
        cache_dir="",
        serve_port=8701,
        expect="",  # type: ignore[arg-type]
        engine_plan="",
        api_key_file="",
    )


def test_every_setting_is_read_from_its_variable() -> None:
    """Each variable of the agent arrives in its field, in the field's type."""
    env = WORKER | {
        "SHOAL_NODE_NAME": "n2",
        "SHOAL_NUM_GPUS": "0",
        "SHOAL_NUM_CPUS": "12",
        "SHOAL_PORT_BASE": "28000",
        "SHOAL_AGENT_PORT": "9000",
        "SHOAL_RAY_TEMP_DIR": "/run/ray",
        "SHOAL_OBJECT_STORE_MB": "300",
        "SHOAL_JOIN_TIMEOUT": "7.5",
        "SHOAL_LOST_AFTER": "12",
        "SHOAL_RESTARTS": "0",
        "SHOAL_STATE_DIR": "/s",
        "SHOAL_CACHE_DIR": "/c",
        "SHOAL_RUN_ID": "r",
        "SHOAL_LOG": "json",
        "SHOAL_EXECUTOR": "mp",
        "SHOAL_SHARE_GPUS": "1",
        "SHOAL_PREFLIGHT_IGNORE": "gpu.answers",
        "SHOAL_SERVE_PORT": "9001",
        "SHOAL_API_KEY_FILE": "/k",
    }
    assert agent_settings(env).model_dump() == {
        "address": "192.168.100.2",
        "ray_address": "192.168.100.1:6379",
        "name": "n2",
        "agent_port": 9000,
        "join_timeout": 7.5,
        "restarts": 0,
        "restart_window": 600.0,
        "run_id": "r",
        "log": "json",
        "executor": "mp",
        "state_dir": "/s",
        "cache_dir": "/c",
        "mode": "worker",
        "num_gpus": 0,
        "num_cpus": 12,
        "port_base": 28000,
        "temp_dir": "/run/ray",
        "object_store_mb": 300,
        "lost_after": 12.0,
        "share_gpus": 1,
        "preflight_ignore": "gpu.answers",
        "serve_port": 9001,
        "api_key_file": "/k",
    }


def test_every_row_of_the_table_has_a_reader() -> None:
    """Each variable of the table is a field of the settings it says it is read by, and of no others."""
    fields = {"agent": set(AgentSettings.model_fields), "serve": set(ServeSettings.model_fields)}
    read = {
        row.name: "both" if all(row.field in names for names in fields.values()) else reader
        for row in TABLE
        for reader, names in fields.items()
        if row.field in names
    }
    assert read == {row.name: row.reader for row in TABLE}
    assert fields["agent"] | fields["serve"] == {row.field for row in TABLE}


def test_the_table_and_the_settings_say_the_same_types() -> None:
    """Each setting has the range and the words that its row has: `shoal env check` refuses what a start would."""
    for row in TABLE:
        kinds = [kind for kind in (AgentSettings, ServeSettings) if row.field in kind.model_fields]
        schema = kinds[0].model_json_schema()["properties"][row.field]
        schema = next((part for part in schema.get("anyOf", []) if part["type"] != "null"), schema)
        kind = {"choice": "string", "port": "integer", "nodes": "array"}.get(row.kind, row.kind)
        low, high = (1, 65535) if row.kind == "port" else (row.low, row.high)
        assert schema["type"] == (kind if kind in {"integer", "number", "array"} else "string")
        assert (schema.get("minimum"), schema.get("maximum")) == (low, high)
        assert (schema.get("exclusiveMinimum"), tuple(schema.get("enum", ()))) == (row.above, row.choices)


def test_one_env_file_serves_the_container_as_well() -> None:
    """A variable of ours that only Compose reads is no mistake in the agent's environment."""
    assert agent_settings(HEAD | {"SHOAL_IMAGE": "vllm:1"}) == agent_settings(HEAD)


def test_every_name_is_in_the_table_once() -> None:
    """No variable has two rows, and the required ones are the mode and the address."""
    assert len({row.name for row in VARIABLES}) == len(VARIABLES)
    assert [row.name for row in VARIABLES if row.default is None] == ["RAY_MODE", "VLLM_HOST_IP"]
    assert [row.name for row in VARIABLES if row.secret != is_secret(row.name)] == []


@pytest.mark.parametrize("row", [row for row in VARIABLES if row.default], ids=lambda row: row.name)
def test_every_default_is_a_right_value(row: Variable) -> None:
    """What a row has as its default fits its own type."""
    assert wrong(row, row.default or "") == ""


@given(st.sampled_from(VARIABLES), st.text(min_size=1))
def test_any_value_is_judged(row: Variable, value: str) -> None:
    """No value makes the judgement of a row fail."""
    assert isinstance(wrong(row, value), str)


def test_the_gcs_of_a_head_is_its_own() -> None:
    """A head that is told no GCS address uses its own with Ray's port, a worker the one it is told."""
    assert [agent_settings(HEAD).head, agent_settings(WORKER).head] == ["192.168.100.1:6379", "192.168.100.1:6379"]
    assert agent_settings(HEAD | {"RAY_ADDRESS": "192.168.100.1:7000"}).head == "192.168.100.1:7000"


@given(st.sets(st.sampled_from([row.name for row in TABLE if row.name not in HEAD])), st.sampled_from(["", " ", "\t"]))
def test_an_empty_variable_is_an_absent_one(names: set[str], nothing: str) -> None:
    """A variable that holds nothing, or white space, counts as absent."""
    assert agent_settings(HEAD | dict.fromkeys(names, nothing)) == agent_settings(HEAD)


def test_white_space_around_a_value_is_no_part_of_it() -> None:
    """Values are trimmed: env files bring spaces and carriage returns."""
    assert agent_settings({"RAY_MODE": "head\r", "VLLM_HOST_IP": " 192.168.100.1 "}) == agent_settings(HEAD)


INT = "Input should be a valid integer, unable to parse string as an integer"
POSITIVE = "Input should be greater than 0"
WRONG = {
    ("RAY_MODE", "master"): "Input should be 'head' or 'worker'; expected `head` or `worker`",
    ("RAY_MODE", "wroker"): (
        "Input should be 'head' or 'worker'; expected `head` or `worker`; did you mean \"worker\"?"
    ),
    ("RAY_ADDRESS", "ray://192.168.100.1:10001"): (
        "Value error, expected ADDRESS:PORT; expected the head as `ADDRESS:PORT`; on the head: derived, port 6379"
    ),
    ("VLLM_HOST_IP", "gpu-1"): (
        "Value error, 'gpu-1' does not appear to be an IPv4 or IPv6 address; "
        "expected this node's fabric address; must be local to this machine"
    ),
    ("RAY_ADDRESS", "192.168.100.1"): (
        "Value error, expected ADDRESS:PORT; expected the head as `ADDRESS:PORT`; on the head: derived, port 6379"
    ),
    ("RAY_ADDRESS", "192.168.100.1:99999"): (
        "Value error, expected ADDRESS:PORT; expected the head as `ADDRESS:PORT`; on the head: derived, port 6379"
    ),
    ("SHOAL_NUM_GPUS", "all"): f"{INT}; expected what `ray start --num-gpus` offers; default: the GPUs seen",
    ("SHOAL_NUM_GPUS", "-1"): (
        "Input should be greater than or equal to 0; expected what `ray start --num-gpus` offers; "
        "default: the GPUs seen"
    ),
    ("SHOAL_PORT_BASE", "65500"): (
        "Input should be less than or equal to 65436; expected first of the 100 ports that this node's Ray uses"
    ),
    ("SHOAL_AGENT_PORT", "70000"): (
        "Input should be less than or equal to 65535; expected port of the agent's endpoint on every node"
    ),
    ("SHOAL_OBJECT_STORE_MB", "10"): (
        "Input should be greater than or equal to 75; expected cap of Ray's object store, MiB"
    ),
    ("SHOAL_JOIN_TIMEOUT", "0"): f"{POSITIVE}; expected seconds until a join is given up, and begun again",
    ("SHOAL_JOIN_TIMEOUT", "nan"): (
        "Input should be a finite number; expected seconds until a join is given up, and begun again"
    ),
    (
        "SHOAL_LOST_AFTER",
        "-30",
    ): f"{POSITIVE}; expected seconds of silence until a node counts as lost; it is suspect within 2",
    ("SHOAL_RESTARTS", "many"): f"{INT}; expected restarts within `SHOAL_RESTART_WINDOW` before the breaker opens",
    ("SHOAL_EXECUTOR", "rays"): (
        "Input should be 'auto', 'ray' or 'mp'; expected what holds the ranks on several nodes: Ray, or vLLM's own "
        'processes (`mp`); `auto`: Ray where it is installed; did you mean "ray"?'
    ),
    ("SHOAL_LOG", "xml"): "Input should be 'story' or 'json'; expected `story` or `json`",
}


@pytest.mark.parametrize(("variable", "told"), WRONG.items(), ids=["=".join(pair) for pair in WRONG])
def test_a_wrong_value_is_told_with_its_name_and_what_was_expected(variable: tuple[str, str], told: str) -> None:
    """A refusal names the variable, its value and what was expected."""
    name, value = variable
    assert refused(WORKER | {name: value}) == f"{name}={value!r}: {told}"


@pytest.mark.parametrize("name", ["RAY_MODE", "VLLM_HOST_IP"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_required_variable_that_is_missing_is_told_with_its_meaning(name: str, value: str | None) -> None:
    """A required variable that is absent or empty is told as not set, with its meaning."""
    env = {key: text for key, text in (WORKER | {name: value}).items() if text is not None}
    meaning = next(row.meaning for row in TABLE if row.name == name)
    assert refused(env) == f"{name} is not set: {meaning}"


def test_all_problems_are_told_at_once() -> None:
    """One refusal names every wrong variable, in the fields' order, then the unknown ones."""
    wrong = {"VLLM_HOST_IP": "x", "SHOAL_RESTARTS": "y", "SHOAL_LOG": "z", "SHOAL_PORTBASE": "1", "SHOAL_QQ_X": "1"}
    names = [part.partition("=")[0].partition(" ")[0] for part in refused(wrong).split("; ") if part[:3].isupper()]
    assert names == [
        "VLLM_HOST_IP", "SHOAL_RESTARTS", "SHOAL_LOG", "RAY_MODE", "SHOAL_PORTBASE", "SHOAL_QQ_X",
    ]  # fmt: skip


def test_the_refusal_says_how_to_go_on() -> None:
    """The remedy is in the error's fix, for people and for the exit code of a wrong configuration."""
    with pytest.raises(ConfigError) as raised:
        agent_settings({})
    assert (raised.value.fix, raised.value.exit_code) == ("correct the environment (.env) and start again", 2)


def test_an_unknown_name_of_ours_gets_the_nearest_right_one() -> None:
    """A variable with our prefix that we do not know is refused, with the names that look like it."""
    assert refused(HEAD | {"SHOAL_NUM_GPU": "1"}) == (
        "SHOAL_NUM_GPU is not a setting of shoal; "
        'did you mean "SHOAL_NUM_GPUS" or "SHOAL_NUM_CPUS" or "SHOAL_SHARE_GPUS"?'
    )


def test_names_of_others_and_of_our_tests_are_no_mistake() -> None:
    """Only our own prefix is watched, and test switches may stay in the environment."""
    env = {"NCCL_FOO": "1", "MASTER_ADDR": "x", "SHOAL_TEST_ALL": "1", "MYSHOAL_X": "1"}
    assert agent_settings(HEAD | env) == agent_settings(HEAD)


def test_each_program_accepts_the_others_variables() -> None:
    """One .env serves both programs: a setting of the supervisor is no mistake of the agent, nor the other way."""
    both = WORKER | {row.name: row.default for row in TABLE if row.default}
    assert agent_settings(both) == agent_settings(WORKER)
    assert serve_settings(both) == serve_settings({name: WORKER[name] for name in ("VLLM_HOST_IP", "RAY_ADDRESS")})


@pytest.mark.parametrize("address", [None, "", " "])
def test_a_worker_must_be_told_its_head(address: str | None) -> None:
    """A worker without RAY_ADDRESS is refused."""
    env = WORKER | {"RAY_ADDRESS": address or ""}
    if address is None:
        del env["RAY_ADDRESS"]
    assert refused(env) == "RAY_ADDRESS is not set: a worker needs the head's ADDRESS:PORT"


def test_a_worker_is_not_its_own_head() -> None:
    """A worker whose RAY_ADDRESS is its own address is refused; a head may say its own."""
    own = {"RAY_ADDRESS": "192.168.100.2:6379"}
    assert refused(WORKER | own) == "RAY_ADDRESS='192.168.100.2:6379': it points at this worker itself"
    assert agent_settings(WORKER | own | {"RAY_MODE": "head"}).head == own["RAY_ADDRESS"]


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", ()),
        (" , ", ()),
        ("10.0.0.1", (("10.0.0.1", 1),)),
        ("10.0.0.1:8", (("10.0.0.1", 8),)),
        ("10.0.0.1:0", (("10.0.0.1", 0),)),
        ("10.0.0.1:2, 10.0.0.2 ,10.0.0.3:", (("10.0.0.1", 2), ("10.0.0.2", 1), ("10.0.0.3", 1))),
    ],
)
def test_the_expected_nodes(text: str, nodes: tuple[tuple[str, int], ...]) -> None:
    """The list of expected nodes is addresses with their GPUs, one GPU where no number is given."""
    assert serve_settings(SERVE | {"SHOAL_EXPECT": text}).expect == nodes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1:two", "invalid literal for int() with base 10: 'two'"),
        ("10.0.0.1:-2", "a node cannot have fewer than 0 GPUs"),
        (":2", "'' does not appear to be an IPv4 or IPv6 address"),
        ("gpu-1:2", "'gpu-1' does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_list_of_expected_nodes_is_told(text: str, told: str) -> None:
    """A node that is no address, or whose GPUs are no number, is refused with the list's form."""
    form = "expected the nodes the gate waits for: `ADDRESS[:GPUS],...`; default: this node alone"
    assert refused(SERVE | {"SHOAL_EXPECT": text}, serve=True) == f"SHOAL_EXPECT={text!r}: Value error, {told}; {form}"


@given(st.dictionaries(st.sampled_from([row.name for row in TABLE] + ["SHOAL_X"]), st.text(max_size=8)))
def test_any_environment_is_settings_or_a_refusal(env: dict[str, str]) -> None:
    """Whatever the environment holds, it is read or refused; nothing else is raised."""
    for read in (agent_settings, serve_settings):
        with contextlib.suppress(ConfigError):
            read(env)
