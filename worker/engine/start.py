"""Starts vLLM on a base model: the sizes in its config, and every setting of the engine. Knows no forward pass."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import vllm
from transformers import AutoConfig

from db.contract.tokens.architectures import linears
from worker.engine.graphs import arguments
from worker.engine.prefill import BLOCK
from worker.engine.quantised import prepare
from worker.quantisation import quantisation_of

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Sizes:
    """Of a base model: the longest sequence, the number of logits, the size of a hidden state, the bytes of keys and
    values a token, and the last names of the linears that an adapter may act on."""

    context: int
    vocab: int
    width: int
    token_bytes: int
    targets: tuple[str, ...]


def sizes(path: str | Path, dtype: torch.dtype) -> Sizes:
    """What config.json says. Raises ValueError for an architecture that is not supported."""
    config = AutoConfig.from_pretrained(str(path), local_files_only=True)
    targets = tuple(dict.fromkeys(name.rpartition(".")[2] for name, _, _ in linears(config.to_dict())))
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Sizes(
        context=int(config.max_position_embeddings),
        vocab=int(config.vocab_size),
        width=int(config.hidden_size),
        token_bytes=2 * config.num_hidden_layers * heads * width * dtype.itemsize,
        targets=targets,
    )


def start(
    path: str | Path,
    of: Sizes,
    *,
    dtype: str,
    max_rank: int,
    serve_tokens: int,
    serve_slots: int,
    serve_cache: int,
    name: str | None,
    graphs: bool,
) -> vllm.LLM:
    """The engine; its arguments are those of `worker.engine.engine.Engine`. Raises ValueError for a rank that is not
    supported, CannotCompute for a quantised format that is not."""
    if max_rank > RANKS[-1]:
        raise ValueError(f"max_rank {max_rank} exceeds vLLM's {RANKS[-1]}")
    prepare(quantisation_of(path), dtype)
    return vllm.LLM(
        model=str(path),
        served_model_name=name,
        use_tqdm_on_load=sys.stderr.isatty(),
        disable_log_stats=name is None,  # its counts of what its scheduler serves, in this process's registry
        dtype=dtype,
        max_model_len=of.context,
        **arguments(graphs),
        enable_prefix_caching=True,  # within a salt, which every request has (`Engine.add_request`)
        block_size=BLOCK,
        kv_cache_memory_bytes=of.token_bytes * max(serve_cache, of.context + 8 * BLOCK),
        async_scheduling=False,  # a step begins and ends within a pause
        structured_outputs_config={"backend": "xgrammar"},  # one for all requests: vLLM has one at a time
        max_num_batched_tokens=serve_tokens,
        max_num_seqs=min(64, serve_tokens),
        enable_lora=True,
        max_loras=serve_slots,
        max_cpu_loras=serve_slots,
        max_lora_rank=next(r for r in RANKS if r >= max_rank),
        lora_target_modules=list(of.targets),
    )
