"""The supported architectures and their linear modules, from config.json alone: the one place that lists them. Knows no
files and no weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Linear = tuple[str, int, int]  # name as in transformers' state dict without `.weight`, inputs, outputs


@dataclass(frozen=True)
class Architecture:
    """Where transformers keeps the layers, and the linears of one of them (named within it).

    `flattened` are linears whose input transformers flattens: PEFT's activated LoRA, which looks at a batch's shape,
    fails on them.
    """

    layers: str
    layer: Callable[[Mapping[str, Any]], tuple[Linear, ...]]
    flattened: tuple[str, ...] = ()


def linears(config: Mapping[str, Any]) -> tuple[Linear, ...]:
    """Every attention and MLP linear of a causal LM, in the order of transformers' named_modules.

    Raises ValueError for an architecture that is not supported and for a size that config.json lacks.
    """
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    if architecture is None:
        raise ValueError(f"architecture {config.get('model_type')!r} is not supported; {', '.join(ARCHITECTURES)} are")
    layer, layers = architecture.layer(config), size(config, "num_hidden_layers")
    return tuple(
        (f"{architecture.layers}.{i}.{name}", inputs, outputs) for i in range(layers) for name, inputs, outputs in layer
    )


def layers(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Of modules in model order, the ranges (first, last + 1) that lie in one transformer layer: alike up to the first
    number in their names. A module without one is a layer of its own."""
    alike = [_layer(name) for name in names]
    begins = [i for i, layer in enumerate(alike) if i == 0 or layer != alike[i - 1]]
    return tuple(zip(begins, [*begins[1:], len(alike)], strict=True))


def number(name: str) -> int:
    """Of the transformer layer in which the module of this name lies. Raises ValueError for one outside of all."""
    found = next((part for part in name.split(".") if part.isdigit()), None)
    if found is None:
        raise ValueError(f"{name} is in no layer")
    return int(found)


def _layer(name: str) -> str:
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


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


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "llama": Architecture("model.layers", _llama_layer),
    "qwen2": Architecture("model.layers", _llama_layer),
    "opt": Architecture("model.decoder.layers", _opt_layer, flattened=("fc1", "fc2")),
}
