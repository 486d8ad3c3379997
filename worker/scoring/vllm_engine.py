"""One resident vLLM engine and forward passes outside its scheduler. Everything that depends on vLLM's version is here
and in `vllm_lora`. Knows token ids and slots, no trials.

KV ownership. A scoring forward computes whole sequences, so a layer's keys and values are written and read within that
layer and never again. All layers therefore share one scratch cache that the engine's block pool has never seen: it is
bound to the attention layers for the length of a forward and unbound after it. The scheduler keeps every block it
owns, the engine can serve between scoring calls, and no KV outlives a forward.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import numpy as np
import torch
import vllm
from numpy.typing import NDArray
from transformers import AutoConfig
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata

from worker.scoring.vllm_lora import GroupedLora, ModuleLora, Worn

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
BLOCK = 32  # tokens in a KV block: the smallest the CPU attention kernels take, so that short texts waste little
RANKS = (1, 8, 16, 32, 64, 128, 256)


class Engine:
    """A vLLM engine of one base model on this process's device.

    `modules` maps every linear that an adapter may act on, by its transformers name, to (inputs, outputs). `context`
    is the longest sequence, `vocab` the number of logits. Raises ValueError for an unsupported architecture or rank.
    """

    def __init__(self, path: str | Path, *, dtype: str, max_rank: int, max_tokens: int, serve_slots: int) -> None:
        config = AutoConfig.from_pretrained(str(path), local_files_only=True)
        if config.model_type not in TARGETS:
            raise ValueError(f"cannot score architecture {config.model_type!r}; supported: {sorted(TARGETS)}")
        if max_rank > RANKS[-1]:
            raise ValueError(f"max_rank {max_rank} exceeds vLLM's {RANKS[-1]}")
        self.context = int(config.max_position_embeddings)
        self.vocab = int(config.vocab_size)
        self.dtype = getattr(torch, dtype)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        token_bytes = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        self.llm = vllm.LLM(
            model=str(path),
            dtype=dtype,
            max_model_len=self.context,
            enforce_eager=True,
            enable_prefix_caching=False,
            block_size=BLOCK,
            kv_cache_memory_bytes=token_bytes * (self.context + 8 * BLOCK),
            max_num_batched_tokens=max_tokens,
            max_num_seqs=min(64, max_tokens),
            enable_lora=True,
            max_loras=serve_slots,
            max_cpu_loras=serve_slots,
            max_lora_rank=next(r for r in RANKS if r >= max_rank),
            lora_target_modules=list(TARGETS[config.model_type]),
        )
        self._runner = self.llm.llm_engine.model_executor.driver_worker.worker.model_runner
        self._config = self._runner.vllm_config
        self._group = self._runner.attn_groups[0][0]
        if len(self._runner.kv_cache_config.kv_cache_groups) != 1 or len(self._runner.attn_groups[0]) != 1:
            raise ValueError("the model mixes kinds of attention; one scratch cache cannot hold them")
        self._layers = [self._config.compilation_config.static_forward_context[n] for n in self._group.layer_names]
        self._scratch = self._cache(0)
        self.device: torch.device = self._runner.device
        self.modules: dict[str, tuple[int, int]] = {}
        self._lora = self._install_lora()

    def forward(self, sequences: Sequence[NDArray[np.int32]], worn: Sequence[Worn]) -> torch.Tensor:
        """Hidden states [tokens, width] of `sequences` laid end to end, each attending to itself only."""
        lengths = np.array([len(s) for s in sequences], np.int32)
        blocks = -(-lengths // BLOCK)
        first = np.cumsum(blocks) - blocks
        ends = np.cumsum(lengths, dtype=np.int32)
        tokens = int(ends[-1])
        positions = np.arange(tokens, dtype=np.int64) - np.repeat(ends - lengths, lengths)
        places = np.repeat(first * BLOCK, lengths) + positions
        table = first[:, None] + np.minimum(np.arange(blocks.max()), blocks[:, None] - 1)
        ids = self._to(np.concatenate(sequences).astype(np.int32))
        where = self._to(positions)
        slot_mapping = self._to(places.astype(np.int64))
        starts = np.concatenate([[0], ends]).astype(np.int32)
        metadata = self._metadata(lengths, starts, table.astype(np.int32), slot_mapping, where)
        names = self._group.layer_names
        with (
            torch.inference_mode(),
            self._lora.scoring(worn),
            self._bound(int(blocks.sum())),
            set_forward_context(
                dict.fromkeys(names, metadata),
                self._config,
                num_tokens=tokens,
                slot_mapping=dict.fromkeys(names, slot_mapping),
            ),
        ):
            hidden: torch.Tensor = self._runner.model(input_ids=ids, positions=where)
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, vocab] logits of hidden states [rows, width], in the model's dtype."""
        with torch.inference_mode():
            logits: torch.Tensor = self._runner.model.compute_logits(hidden)
        return logits

    def versions(self) -> dict[str, str]:
        return {"vllm": vllm.__version__, "torch": torch.__version__}

    def close(self) -> None:
        """Give back the model, its memory and the process group; another engine may be started afterwards."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm, self._runner, self._config, self._group, self._layers, self._lora, self._scratch
        cleanup_dist_env_and_memory()
        gc.collect()

    def _to(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _metadata(
        self,
        lengths: NDArray[np.int32],
        starts: NDArray[np.int32],
        table: NDArray[np.int32],
        slot_mapping: torch.Tensor,
        positions: torch.Tensor,
    ) -> Any:
        """The attention backend's own metadata for fresh prefills; fields that a version lacks are left out."""
        given = {
            "query_start_loc": self._to(starts),
            "query_start_loc_cpu": torch.from_numpy(starts),
            "seq_lens": self._to(lengths),
            "num_reqs": len(lengths),
            "num_actual_tokens": int(starts[-1]),
            "max_query_len": int(lengths.max()),
            "max_seq_len": int(lengths.max()),
            "block_table_tensor": self._to(table),
            "slot_mapping": slot_mapping,
            "causal": True,
            "positions": positions,
            "is_prefilling": torch.ones(len(lengths), dtype=torch.bool),
            "seq_lens_cpu_upper_bound": torch.from_numpy(lengths),
            "_seq_lens_cpu": torch.from_numpy(lengths),
            "_num_computed_tokens_cpu": torch.zeros(len(lengths), dtype=torch.int32),
        }
        known = {f.name for f in fields(CommonAttentionMetadata)}
        common = CommonAttentionMetadata(**{k: v for k, v in given.items() if k in known})
        return self._group.get_metadata_builder(0).build(0, common)

    def _cache(self, blocks: int) -> torch.Tensor:
        """A cache of `blocks` blocks in the shape and memory order of the engine's own."""
        like = self._layers[0].kv_cache
        axis = next(i for i, n in enumerate(like.shape) if n == self._runner.kv_cache_config.num_blocks)
        shape = [blocks if i == axis else n for i, n in enumerate(like.shape)]
        order = sorted(range(like.dim()), key=lambda i: like.stride(i), reverse=True)
        memory = torch.zeros([shape[i] for i in order], dtype=like.dtype, device=like.device)
        return memory.permute([order.index(i) for i in range(like.dim())])

    @contextmanager
    def _bound(self, blocks: int) -> Iterator[None]:
        """Bind the scratch cache to every attention layer. It is zeroed first: kernels multiply the unused tail of a
        block by zero, and a tail that an earlier probe filled with NaN would spread to whoever came after."""
        if self._scratch.numel() < self._cache_numel(blocks):
            self._scratch = self._cache(blocks)
        else:
            self._scratch.zero_()
        own = [layer.kv_cache for layer in self._layers]
        try:
            for layer in self._layers:
                layer.kv_cache = self._scratch
            yield
        finally:
            for layer, cache in zip(self._layers, own, strict=True):
                layer.kv_cache = cache

    def _cache_numel(self, blocks: int) -> int:
        return int(self._layers[0].kv_cache.numel()) // int(self._runner.kv_cache_config.num_blocks) * blocks

    def _install_lora(self) -> GroupedLora:
        """Replace vLLM's CPU LoRA kernels by the grouped ones and learn which linears an adapter may act on."""
        inner = self._runner.lora_manager._adapter_manager
        if len(inner.punica_wrapper_mapping) != 1:
            raise ValueError("the model has several LoRA wrappers; only text models are scored")
        shared = GroupedLora(inner.max_num_batched_tokens, inner.max_num_seqs, self.device)
        inner.punica_wrapper_mapping = dict.fromkeys(inner.punica_wrapper_mapping, shared)
        for name, module in inner.modules.items():
            names = tuple(inner.packed_modules.get(name, [name]))
            for part, outputs in zip(names, module.output_slices, strict=True):
                self.modules[part] = (int(module.input_size), int(outputs))
            module.set_mapping(ModuleLora(names, shared))
        return shared
