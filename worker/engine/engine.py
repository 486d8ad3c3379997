"""One resident vLLM engine and forward passes outside its scheduler. Everything that depends on vLLM's version is here
and in `vllm_lora`. Knows token ids and slots, no trials.

KV ownership. A scoring forward computes whole sequences, so a layer's keys and values are written and read within that
layer and never again. All layers therefore share one scratch cache that the engine's block pool has never seen: it is
bound to the attention layers for the length of a forward and unbound after it. The scheduler keeps every block it
owns, the engine can serve between scoring calls, and no KV in blocks outlives a forward.

Prompts that many probes continue are the exception, and touch no block: a forward of the bare base hands out its keys
and values as tensors, and a later forward's attention is told to read them (`worker.engine.attention`). Both work by
standing in for the attention layers' own `forward`, which has been the same in every version of vLLM and on every
device, where the layout of a paged cache has not.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vllm
from numpy.typing import NDArray
from transformers import AutoConfig
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata

from worker.engine import kernels
from worker.engine.attention import BranchAttention
from worker.engine.lora import GroupedLora, ModuleLora, Worn
from worker.engine.quantised import prepare
from worker.quantisation import quantisation_of

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
BLOCK = 32  # tokens in a KV block: the smallest the CPU attention kernels take, so that short texts waste little
TOGETHER = 96  # tokens: on a CPU copying short prompts side by side is cheaper than a call for each; long ones are not
RANKS = (1, 8, 16, 32, 64, 128, 256)


class Engine:
    """A vLLM engine of one base model on this process's device.

    With a `name` vLLM counts what its scheduler serves under it. `modules` maps every linear that an adapter may act
    on, by its transformers name, to (inputs, outputs). `context` is the longest sequence, `vocab` the number of logits.
    Raises ValueError for an unsupported architecture or rank.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str,
        max_rank: int,
        max_tokens: int,
        serve_slots: int,
        name: str | None = None,
    ) -> None:
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
        prepare(quantisation_of(path), dtype)
        self.llm = vllm.LLM(
            model=str(path),
            served_model_name=name,
            use_tqdm_on_load=sys.stderr.isatty(),
            disable_log_stats=name is None,  # its counts of what its scheduler serves, in this process's registry
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
        self.prompt_bytes = token_bytes  # of keys and values, a token
        self.together = TOGETHER if self._runner.device.type == "cpu" else 1 << 62
        self._scratch = self._cache(0)
        self.device: torch.device = self._runner.device
        self.modules: dict[str, tuple[int, int]] = {}
        self._lora = self._install_lora()
        kernels.use(self._runner.model, self.device)

    def forward(self, ids: NDArray[np.int32], lengths: Sequence[int], worn: Sequence[Worn]) -> torch.Tensor:
        """Hidden states [tokens, width] of whole sequences of these `lengths`, `ids` [tokens] end to end, each
        attending to itself only."""
        count = np.array(lengths, np.int32)
        blocks = -(-count // BLOCK)
        first = np.cumsum(blocks) - blocks
        ends = np.cumsum(count, dtype=np.int32)
        positions = np.arange(len(ids), dtype=np.int64) - np.repeat(ends - count, count)
        places = np.repeat(first * BLOCK, count) + positions
        table = first[:, None] + np.minimum(np.arange(blocks.max()), blocks[:, None] - 1)
        where = self._to(positions)
        slot_mapping = self._to(places.astype(np.int64))
        starts = np.concatenate([[0], ends]).astype(np.int32)
        metadata = self._metadata(count, starts, table.astype(np.int32), slot_mapping, where)
        with self._bound(int(blocks.sum())):
            return self._run(ids, where, worn, metadata, slot_mapping)

    def prompts(self, sequences: Sequence[NDArray[np.int32]]) -> list[torch.Tensor]:
        """Keys and values of whole sequences under the bare base, each [layers, 2, key heads, length, width]."""
        lengths = [len(s) for s in sequences]
        layer = self._layers[0]
        size = (len(self._layers), 2, layer.num_kv_heads, sum(lengths), layer.head_size)
        kept = torch.empty(size, dtype=self.dtype, device=self.device)

        def keep(
            number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
        ) -> torch.Tensor:
            for part, given in enumerate((key, value)):
                kept[number, part] = given.view(-1, layer.num_kv_heads, layer.head_size).transpose(0, 1)
            own = self._layers[number]
            out: torch.Tensor = type(own).forward(own, query, key, value, *args, **kwargs)
            return out

        with self._standing_in(keep):
            self.forward(np.concatenate(sequences), lengths, ())
        ends = np.cumsum(lengths)
        return [kept[:, :, :, end - length : end].contiguous() for end, length in zip(ends, lengths, strict=True)]

    def forward_branched(
        self,
        ids: NDArray[np.int32],
        positions: NDArray[np.int64],
        attention: BranchAttention,
        worn: Sequence[Worn],
    ) -> torch.Tensor:
        """Hidden states [tokens, width] of `ids` at `positions` [tokens] that see what `attention` says."""

        def attend(
            number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
        ) -> torch.Tensor:
            own = self._layers[number]
            q = query.view(-1, own.num_heads, own.head_size)
            k, v = (x.view(-1, own.num_kv_heads, own.head_size) for x in (key, value))
            return attention(number, q, k, v, own.impl.scale).reshape(query.shape)

        with self._standing_in(attend):
            return self._run(ids, self._to(positions), worn, None, None)

    def _run(
        self,
        ids: NDArray[np.int32],
        positions: torch.Tensor,
        worn: Sequence[Worn],
        metadata: Any,
        slot_mapping: torch.Tensor | None,
    ) -> torch.Tensor:
        names = self._group.layer_names
        with (
            torch.inference_mode(),
            self._lora.scoring(worn),
            set_forward_context(
                None if metadata is None else dict.fromkeys(names, metadata),
                self._config,
                num_tokens=len(ids),
                slot_mapping=None if slot_mapping is None else dict.fromkeys(names, slot_mapping),
            ),
        ):
            hidden: torch.Tensor = self._runner.model(input_ids=self._to(ids), positions=positions)
        return hidden

    @contextmanager
    def _standing_in(self, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Within this, attention layer i does `forward(i, query, key, value)`."""
        try:
            for number, layer in enumerate(self._layers):
                layer.forward = partial(forward, number)
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)

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
