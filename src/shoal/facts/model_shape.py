"""What a model's ``config.json`` says of its shape: layers, heads, experts, window and quantization."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.errors import ConfigError
from shoal.facts.model_folder import CONTEXT, HEADS, HIDDEN, LAYERS

WIDTH = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
# Bytes of a weight once vLLM has loaded it: its `auto` makes 16 bits of 32.
BYTES = {"bfloat16": 2, "float16": 2, "float32": 2, "half": 2, "bf16": 2, "fp16": 2}
# Families whose layers have two matrices instead of three (no gate), by the beginning of the architecture's name.
UNGATED = ("GPT2", "GPTNeoX", "GPTJ", "GPTBigCode", "OPT", "Bloom", "Falcon", "MPT", "Phi", "CodeGen", "Starcoder2")
GATED = ("Phi3", "PhiMoE")
# Families whose output matrix is the input's, unless config.json says otherwise.
TIED = ("Gemma", "GPT2", "OPT", "Bloom", "Falcon", "Cohere")


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: what is cached is one vector for all heads."""

    kv_rank: int
    query_rank: int  # 0: queries are not compressed
    rope: int
    nope: int
    value: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: how many, how wide each is, and how wide the part that every token passes."""

    count: int
    width: int
    shared: int


@dataclass(frozen=True)
class Quantization:
    """Bits of a quantized weight, its scales included, and whether only the experts are quantized."""

    method: str
    bits: float
    block: int = 0  # a shard must be a multiple of it
    experts_only: bool = False


@dataclass(frozen=True)
class ModelShape:
    """A model. ``moe`` and ``full`` say of each layer whether it has experts, and whether it looks at all tokens."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    context: int
    moe: tuple[bool, ...]
    full: tuple[bool, ...]
    window: int | None = None
    gated: bool = True
    tied: bool = False
    dtype_bytes: int = 2
    stored_bytes: int = 2  # of a weight in the file
    latent: Latent | None = None
    experts: Experts | None = None
    quantization: Quantization | None = None


def parse(config: Mapping[str, Any]) -> ModelShape:
    """The shape.

    Raises:
        ConfigError: a number is missing without which nothing can be said.
    """
    inner = config.get("text_config")
    # Models that also see or hear keep the language model's numbers one level down.
    merged = {**config, **inner} if isinstance(inner, Mapping) else dict(config)
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, Sequence) and named else "unknown"
    layers, hidden, heads = (_needed(merged, names) for names in (LAYERS, HIDDEN, HEADS))
    width = _number(merged, WIDTH) or 4 * hidden
    window = _window(merged)
    return ModelShape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=1 if merged.get("multi_query") is True else _number(merged, ("num_key_value_heads",)) or heads,
        head_dim=_number(merged, ("head_dim",)) or hidden // heads,
        width=width,
        vocab=_needed(merged, ("vocab_size",)),
        context=_number(merged, CONTEXT) or 0,
        moe=_moe_layers(merged, layers),
        full=_full_layers(merged, layers, window),
        window=window,
        gated=architecture.startswith(GATED) or not architecture.startswith(UNGATED),
        tied=bool(merged.get("tie_word_embeddings", architecture.startswith(TIED))),
        stored_bytes=4 if _dtype(merged) == "float32" else 2,
        latent=_latent(merged),
        experts=_experts(merged, width),
        quantization=_quantization(merged.get("quantization_config")),
    )


def _number(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((value for name in names if type(value := config.get(name)) is int and value > 0), None)


def _needed(config: Mapping[str, Any], names: Sequence[str]) -> int:
    value = _number(config, names)
    if value is None:
        raise ConfigError(
            f"config.json has no {names[0]}",
            why=f"none of {', '.join(names)} is a number above 0",
            fix="name the folder of a language model in Hugging Face's layout",
        )
    return value


def _dtype(config: Mapping[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")


def _moe_layers(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    if _number(config, EXPERTS) is None:
        return (False,) * layers
    first = _number(config, ("first_k_dense_replace",)) or 0
    every = _number(config, ("moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step")) or 1
    dense = config.get("mlp_only_layers")
    plain = {item for item in dense if isinstance(item, int)} if isinstance(dense, list) else set()
    # DeepSeek counts from layer 0, Qwen and Llama 4 from layer 1; with a step of 1 it is the same.
    offset = 0 if "moe_layer_freq" in config else 1
    return tuple(n >= first and (n + offset) % every == 0 and n not in plain for n in range(layers))


def _window(config: Mapping[str, Any]) -> int | None:
    return None if config.get("use_sliding_window") is False else _number(config, ("sliding_window",))


def _full_layers(config: Mapping[str, Any], layers: int, window: int | None) -> tuple[bool, ...]:
    if window is None:
        return (True,) * layers
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return tuple(kind != "sliding_attention" for kind in kinds)
    every = _number(config, ("sliding_window_pattern",)) or (2 if config.get("model_type") == "gemma2" else 0)
    return tuple(every > 0 and (n + 1) % every == 0 for n in range(layers))


def _latent(config: Mapping[str, Any]) -> Latent | None:
    rank = _number(config, ("kv_lora_rank",))
    if rank is None:
        return None
    return Latent(
        kv_rank=rank,
        query_rank=_number(config, ("q_lora_rank",)) or 0,
        rope=_needed(config, ("qk_rope_head_dim",)),
        nope=_needed(config, ("qk_nope_head_dim",)),
        value=_needed(config, ("v_head_dim",)),
    )


def _experts(config: Mapping[str, Any], width: int) -> Experts | None:
    count = _number(config, EXPERTS)
    if count is None:
        return None
    each = _number(config, ("moe_intermediate_size",)) or width
    shared = _number(config, ("n_shared_experts",)) or 0
    return Experts(count, each, _number(config, ("shared_expert_intermediate_size",)) or shared * each)


def _quantization(found: Any) -> Quantization | None:
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method", "unknown")).lower()
    bits = _number(found, ("bits", "w_bit")) or 4
    group = _number(found, ("group_size", "q_group_size")) or 128
    if method == "fp8":
        block = found.get("weight_block_size")
        side = block[0] if isinstance(block, list) and block and type(block[0]) is int else 0
        return Quantization(method, 8 + (32 / side**2 if side else 0), side)
    if method == "mxfp4":
        return Quantization(method, 4 + 8 / 32, experts_only=True)
    if method in {"awq", "gptq"}:
        return Quantization(method, bits + (16 + bits) / group, group)
    if method == "bitsandbytes":
        return Quantization(method, 8 if found.get("load_in_8bit") is True else 4 + 32 / 64)
    if method == "modelopt":
        return Quantization(method, 4 + 8 / 16 if "FP4" in str(found.get("quant_algo")) else 8)
    if method == "compressed-tensors":
        return _compressed(method, found)
    raise ConfigError(
        f'quantization "{method}" is not known here',
        why="how many bits a weight takes is not known",
        fix="shoal fit --help",
    )


def _compressed(method: str, found: Mapping[str, Any]) -> Quantization:
    groups = found.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    scheme = weights if isinstance(weights, Mapping) else {}
    group = _number(scheme, ("group_size",))
    return Quantization(method, (_number(scheme, ("num_bits",)) or 8) + (16 / group if group else 0))
