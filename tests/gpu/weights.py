"""A Llama-shaped model of 7.4 billion random weights: `python -m tests.gpu.weights FOLDER`. It has no tokenizer."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, INNER, LAYERS, HEADS, KV, DIM, WORDS = 4096, 14336, 32, 32, 8, 128, 49152
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": DIM,
    "vocab_size": WORDS, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "hidden_act": "silu", "dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
BLOCK = {
    "self_attn.q_proj": (HEADS * DIM, HIDDEN), "self_attn.k_proj": (KV * DIM, HIDDEN),
    "self_attn.v_proj": (KV * DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * DIM),
    "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
}  # fmt: skip


def tensor(shape: tuple[int, ...]) -> torch.Tensor:
    """Random weights small enough that nothing overflows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (torch.randn(shape, device=device, dtype=torch.float32) * 0.02).to(torch.bfloat16).cpu()


def shards() -> list[dict[str, torch.Tensor]]:
    """The names of each file's tensors, made when they are written."""
    out: list[dict[str, tuple[int, ...]]] = []
    for first in range(0, LAYERS, 8):
        names = {
            f"model.layers.{n}.{part}.weight": shape for n in range(first, first + 8) for part, shape in BLOCK.items()
        }
        norms = ("input_layernorm", "post_attention_layernorm")
        names |= {f"model.layers.{n}.{norm}.weight": (HIDDEN,) for n in range(first, first + 8) for norm in norms}
        out.append(names)
    out[0] |= {"model.embed_tokens.weight": (WORDS, HIDDEN)}
    out[-1] |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (WORDS, HIDDEN)}
    return out


def main(target: Path) -> None:
    """Write the folder; its config comes last, so that a half-written one is none."""
    target.mkdir(parents=True, exist_ok=True)
    weights, size = {}, 0
    parts = shards()
    for number, shapes in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        made = {key: torch.ones(s, dtype=torch.bfloat16) if "norm" in key else tensor(s) for key, s in shapes.items()}
        save_file(made, target / name, metadata={"format": "pt"})
        size += sum(item.numel() * 2 for item in made.values())
        weights |= dict.fromkeys(made, name)
        print(f"{name}: {size / 1e9:.1f} GB", flush=True)
    index = {"metadata": {"total_size": size}, "weight_map": weights}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    (target / "config.json").write_text(json.dumps(CONFIG))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
