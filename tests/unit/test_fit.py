"""How a model fits on GPUs, from real shapes: sizes, what divides, what crosses the fabric, and what is recommended."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Golden

from shoal.errors import ConfigError
from shoal.facts.model_shape import ModelShape, parse
from shoal.plan.fit import GIB, Fleet, Weights, answer, stages
from shoal.plan.gpus import GPUS
from shoal.ui.verbs.fit import verb

# A command keeps the help option of its first call: another test reads the help page of this verb.
HELP = ["-h", "--help"]

CONFIGS = Path(__file__).parent / "data/configs"
# Bytes of the published safetensors, as each model's index totals them (SmolLM2: its one file).
PUBLISHED = {
    "smollm2-135m": 269_060_552,
    "mixtral-8x7b": 93_405_585_408,
    "llama-3.3-70b": 141_107_412_992,
    "gpt-oss-120b": 65_248_815_744,
    "deepseek-v3": 688_586_727_753,
}
SPARKS = Fleet(2, 1, GPUS["gb10"].memory, unified=True)
H100S = Fleet(2, 8, GPUS["h100"].memory)
H200S = Fleet(2, 8, GPUS["h200"].memory)


def shape(name: str, **changes: object) -> ModelShape:
    return parse(json.loads((CONFIGS / f"{name}.json").read_text()) | changes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_counted_from_the_shape_are_the_published_ones(name: str) -> None:
    """Counted from config.json alone, a model is within 5 % of its published files."""
    assert Weights(shape(name)).total == pytest.approx(PUBLISHED[name], rel=0.05)


def test_weights_follow_the_files_where_they_are_known() -> None:
    """Where the size of the files is known the total is that size, and half of it for files of 32 bits."""
    assert Weights(shape("mixtral-8x7b"), 10**11).total == 10**11
    assert Weights(shape("mixtral-8x7b", torch_dtype="float32"), 10**11).total == 5 * 10**10


ANSWERS = {
    "smollm2-135m": SPARKS,
    "mixtral-8x7b": H100S,
    "llama-3.3-70b": SPARKS,
    "gpt-oss-120b": SPARKS,
    "deepseek-v3": H200S,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_whole_answer(name: str, golden: Golden) -> None:
    """Every layout of a real model on a real fleet, the one to choose, and the reason."""
    golden(f"fit/{name}.json", asdict(answer(shape(name), ANSWERS[name], 8192, PUBLISHED[name])))


def test_layers_are_dealt_out_as_vllm_does() -> None:
    """What does not divide goes to the stages before the last one."""
    assert [[len(part) for part in stages(61, n)] for n in (1, 2, 4, 8)] == [
        [61], [31, 30], [15, 15, 16, 15], [7, 7, 8, 8, 8, 8, 8, 7],
    ]  # fmt: skip


def problems(of: ModelShape, fleet: Fleet) -> dict[tuple[int, int], str]:
    found = answer(of, fleet, 1).layouts
    return {(layout.tensor, layout.pipeline): layout.problem for layout in found if layout.data == 1}


def test_what_does_not_divide_is_said() -> None:
    """Heads, key-value heads, layers, nodes and blocks of quantization: each has its sentence."""
    small = Fleet(1, 6, 80 * GIB)
    assert problems(shape("smollm2-135m"), small)[(2, 3)] == "9 attention heads are not divisible by 2"
    twelve = shape("smollm2-135m", num_attention_heads=12, num_key_value_heads=4, hidden_size=768)
    assert problems(twelve, small)[(3, 2)] == "4 key-value heads are not divisible by 3, nor 3 by them"
    assert problems(shape("smollm2-135m", num_hidden_layers=2), small)[(1, 6)] == "6 stages are more than 2 layers"
    odd = shape("smollm2-135m", num_attention_heads=24, num_key_value_heads=24, hidden_size=768)
    assert (
        problems(odd, Fleet(4, 6, 80 * GIB))[(4, 6)] == "4 ranks are neither a part of a node's 6 GPUs nor whole nodes"
    )
    assert problems(shape("deepseek-v3"), Fleet(4, 8, 140 * GIB))[(32, 1)] == (
        "a layer's width of 18432 does not split into 32 parts of whole 128-blocks"
    )


def test_a_model_that_is_too_big_is_told_by_how_much() -> None:
    """Nothing is recommended, and the reason has weights and room of the nearest layout."""
    found = answer(shape("deepseek-v3"), SPARKS, 8192)
    assert (found.best, found.why.startswith("it does not fit on 2 GPU(s): at best ")) == (None, True)
    assert found.why.endswith("of 119.6 GiB are free for them")


def test_unified_memory_leaves_room_for_the_host() -> None:
    """On a GB10 the system, Ray and the engine's own processes come out of the same memory."""
    own = Fleet(1, 1, 60 * GIB)
    assert (own.usable, Fleet(1, 1, 60 * GIB, unified=True).usable) == (54 * GIB, 48 * GIB)


def test_a_cache_of_layers_with_a_window_holds_longer_requests() -> None:
    """Half of gpt-oss's layers keep 128 tokens, so a request may be about twice as long as with all layers full."""
    plain = shape("gpt-oss-120b", sliding_window=None, layer_types=None, max_position_embeddings=10**9)
    windowed = shape("gpt-oss-120b", max_position_embeddings=10**9)
    one = Fleet(1, 1, GPUS["h100"].memory)
    longest = [answer(of, one, 1).layouts[0].context for of in (plain, windowed)]
    assert longest[1] == pytest.approx(2 * longest[0], rel=0.01)


@given(
    heads=st.integers(1, 16), kv=st.integers(1, 16), layers=st.integers(1, 20), nodes=st.integers(1, 4),
    gpus=st.integers(1, 8), memory=st.integers(2, 200),
)  # fmt: skip
def test_no_rank_is_promised_more_than_it_has(
    heads: int, kv: int, layers: int, nodes: int, gpus: int, memory: int
) -> None:
    """Whatever the model and the fleet: weights and cache stay below what vLLM may use, and all GPUs are used."""
    of = shape("smollm2-135m", num_attention_heads=heads, num_key_value_heads=kv, num_hidden_layers=layers)
    fleet = Fleet(nodes, gpus, memory * GIB)
    found = answer(of, fleet, 1)
    for layout in found.layouts:
        assert layout.tensor * layout.pipeline * layout.data == nodes * gpus
        assert layout.problem or layout.weight_bytes + layout.kv_bytes <= fleet.usable
    assert found.best is None or (found.best.data, found.best.problem) == (1, "")


# The command.


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(verb, words, env={"COLUMNS": "200"}, help_option_names=HELP)
    return done.exit_code, done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with nothing but its config.json."""
    (tmp_path / "config.json").write_bytes((CONFIGS / "llama-3.3-70b.json").read_bytes())
    return tmp_path


def test_the_command_says_what_to_choose_and_why(folder: Path) -> None:
    """Model, GPUs, a row for each layout, the recommendation and its reason; code 0."""
    code, out = run(str(folder), "--nodes", "2", "--gpus", "1", "--gpu", "gb10")
    assert code == 0
    assert f"model     {folder} (LlamaForCausalLM): {folder}, weights by config.json\n" in out
    assert "weights   131.4 GiB in 80 layers, context up to 131,072 tokens\n" in out
    assert "GPUs      2 node(s) x 1, 119.6 GiB unified memory, 107.6 GiB for vLLM\n" in out
    assert "recommended: tensor parallel 1, pipeline parallel 2\nbecause: a pipeline between nodes" in out


def test_the_command_ends_with_1_where_it_does_not_fit(folder: Path) -> None:
    """What does not fit is no success."""
    code, out = run(str(folder), "--memory", "24")
    assert (code, "It does not fit: it does not fit on 1 GPU(s)" in out) == (1, True)


def test_a_cluster_file_names_model_and_gpus(folder: Path, tmp_path: Path) -> None:
    """With -f the model, the hosts and their GPUs are the file's."""
    file = tmp_path / "shoal.yaml"
    hosts = "".join(f"  - {{name: gpu-{n}, gpus: 8}}\n" for n in (1, 2))
    file.write_text(f"cluster: lab\nmodel: {folder}\nhosts:\n{hosts}")
    code, out = run("-f", str(file), "--gpu", "h100", "--json")
    document = json.loads(out)
    assert (code, document["fleet"]["nodes"], document["fleet"]["gpus"]) == (0, 2, 8)
    best = document["recommended"]
    assert (best["tensor"], best["pipeline"], best["data"]) == (8, 2, 1)


# What config.json may say.


def test_a_config_without_a_needed_number_is_named() -> None:
    """The missing number, and the names that were looked for."""
    with pytest.raises(ConfigError) as raised:
        parse({"architectures": ["X"], "num_hidden_layers": 2})
    assert raised.value.what == "config.json has no hidden_size"


QUANTIZED = {
    "fp8": ({"quant_method": "fp8"}, 8.0),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
    "nvfp4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
    "bnb": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
    "w4a16": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}},
        },
        4 + 16 / 128,
    ),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_bits_of_a_quantized_weight(name: str) -> None:
    """Each method's bits, with its scales."""
    config, bits = QUANTIZED[name]
    found = shape("llama-3.3-70b", quantization_config=config).quantization
    assert (found and found.bits) == bits


def test_a_quantization_that_nobody_knows_is_refused() -> None:
    """No number is better than a wrong one."""
    with pytest.raises(ConfigError, match='quantization "new" is not known here'):
        shape("llama-3.3-70b", quantization_config={"quant_method": "new"})


def test_layers_of_other_families() -> None:
    """Qwen's step, Gemma's window and the language half of a model that sees are read as their families mean them."""
    qwen = shape("llama-3.3-70b", num_experts=4, decoder_sparse_step=2, num_hidden_layers=4, mlp_only_layers=[3])
    gemma = shape("llama-3.3-70b", num_hidden_layers=6, sliding_window=512, sliding_window_pattern=6)
    inner = json.loads((CONFIGS / "mixtral-8x7b.json").read_text())
    assert qwen.moe == (False, True, False, False)
    assert gemma.full == (False, False, False, False, False, True)
    assert parse({"architectures": ["X"], "text_config": inner}).layers == 32


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


KEYS = [
    "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "sliding_window", "layer_types",
    "quantization_config", "kv_lora_rank", "n_routed_experts", "mlp_only_layers", "architectures", "text_config",
    "head_dim", "num_key_value_heads", "torch_dtype", "weight_block_size", "first_k_dense_replace", "moe_layer_freq",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_no_config_is_more_than_a_mistake(changes: dict[str, object]) -> None:
    """Whatever config.json holds, it is a shape or an error that says what is missing."""
    try:
        found = shape("deepseek-v3", **changes)
    except ConfigError:
        return
    assert len(found.moe) == len(found.full) == found.layers
