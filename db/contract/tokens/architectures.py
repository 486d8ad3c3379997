"""The linear modules of the supported architectures, from config.json alone. Knows no files and no weights."""

from collections.abc import Mapping
from typing import Any

Linear = tuple[str, int, int]  # name as in transformers' state dict without `.weight`, inputs, outputs
SUPPORTED = ("llama", "qwen2", "opt")
# Linears whose input transformers flattens: PEFT's activated LoRA, which looks at a batch's shape, fails on them.
FLATTENED = {"opt": ("fc1", "fc2")}


def linears(config: Mapping[str, Any]) -> tuple[Linear, ...]:
    """Every attention and MLP linear of a causal LM, in the order of transformers' named_modules.

    Raises ValueError for an architecture that is not supported and for a size that config.json lacks.
    """
    architecture = config.get("model_type")
    if architecture not in SUPPORTED:
        raise ValueError(f"architecture {architecture!r} is not supported; {', '.join(SUPPORTED)} are")
    layer = _opt_layer(config) if architecture == "opt" else _llama_layer(config)
    prefix = "model.decoder.layers" if architecture == "opt" else "model.layers"
    layers = size(config, "num_hidden_layers")
    return tuple((f"{prefix}.{i}.{name}", inputs, outputs) for i in range(layers) for name, inputs, outputs in layer)


def size(config: Mapping[str, Any], key: str) -> int:
    """A size of config.json, at least 1. Raises ValueError."""
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ValueError(f"config.json has {key} {value!r} where a size is needed")
    return value


def _llama_layer(config: Mapping[str, Any]) -> tuple[Linear, ...]:
    hidden, inner, heads = (size(config, k) for k in ("hidden_size", "intermediate_size", "num_attention_heads"))
    head = size(config, "head_dim") if config.get("head_dim") else hidden // heads
    key_heads = size(config, "num_key_value_heads") if config.get("num_key_value_heads") else heads
    queries, keys = heads * head, key_heads * head
    return (
        ("self_attn.q_proj", hidden, queries),
        ("self_attn.k_proj", hidden, keys),
        ("self_attn.v_proj", hidden, keys),
        ("self_attn.o_proj", queries, hidden),
        ("mlp.gate_proj", hidden, inner),
        ("mlp.up_proj", hidden, inner),
        ("mlp.down_proj", inner, hidden),
    )


def _opt_layer(config: Mapping[str, Any]) -> tuple[Linear, ...]:
    # word_embed_proj_dim may differ from hidden_size; it shapes project_in and project_out, which no adapter acts on.
    hidden, inner = size(config, "hidden_size"), size(config, "ffn_dim")
    attention = tuple((f"self_attn.{name}", hidden, hidden) for name in ("k_proj", "v_proj", "q_proj", "out_proj"))
    return (*attention, ("fc1", hidden, inner), ("fc2", inner, hidden))
