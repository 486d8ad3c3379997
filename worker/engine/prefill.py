"""Whole sequences in one forward outside vLLM's scheduler: where their keys and values lie, and the backend's metadata
for it. Knows attention layers and the shape of their cache; no adapters and no trials.

A scoring forward computes whole sequences, so a layer's keys and values are written and read within that layer and
never again. All layers therefore share one scratch cache that the engine's block pool has never seen: it is bound to
the attention layers for the length of a forward and unbound after it. The scheduler keeps every block it owns, the
engine can serve between scoring calls, and no KV in blocks outlives a forward.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.attention.backend import CommonAttentionMetadata

BLOCK = 32  # tokens in a KV block: the smallest the CPU attention kernels take, so that short texts waste little


@dataclass(frozen=True)
class Prefill:
    """Sequences laid end to end: `positions` [tokens] within each, `slots` [tokens] in the scratch cache of `blocks`
    blocks, and the attention backend's own `metadata`."""

    positions: torch.Tensor
    slots: torch.Tensor
    blocks: int
    metadata: Any


def prefill(lengths: Sequence[int], builder: Any, device: torch.device) -> Prefill:
    """Fresh sequences of these `lengths`, each with blocks of its own and attending to itself only; `builder` is the
    backend's metadata builder."""
    count = np.array(lengths, np.int32)
    blocks = -(-count // BLOCK)
    first = np.cumsum(blocks) - blocks
    ends = np.cumsum(count, dtype=np.int32)
    positions = np.arange(ends[-1], dtype=np.int64) - np.repeat(ends - count, count)
    places = np.repeat(first * BLOCK, count) + positions
    table = first[:, None] + np.minimum(np.arange(blocks.max()), blocks[:, None] - 1)
    where, slots, table_on = (
        torch.from_numpy(x).to(device) for x in (positions, places.astype(np.int64), table.astype(np.int32))
    )
    starts = np.concatenate([[0], ends]).astype(np.int32)
    metadata = builder.build(0, _common(count, starts, table_on, slots, where))
    return Prefill(where, slots, int(blocks.sum()), metadata)


def _common(
    lengths: NDArray[np.int32],
    starts: NDArray[np.int32],
    table: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
) -> Any:
    """What vLLM tells every backend; fields that a version lacks are left out."""
    given = {
        "query_start_loc": torch.from_numpy(starts).to(slots.device),
        "query_start_loc_cpu": torch.from_numpy(starts),
        "seq_lens": torch.from_numpy(lengths).to(slots.device),
        "num_reqs": len(lengths),
        "num_actual_tokens": int(starts[-1]),
        "max_query_len": int(lengths.max()),
        "max_seq_len": int(lengths.max()),
        "block_table_tensor": table,
        "slot_mapping": slots,
        "causal": True,
        "positions": positions,
        "is_prefilling": torch.ones(len(lengths), dtype=torch.bool),
        "seq_lens_cpu_upper_bound": torch.from_numpy(lengths),
        "_seq_lens_cpu": torch.from_numpy(lengths),
        "_num_computed_tokens_cpu": torch.zeros(len(lengths), dtype=torch.int32),
    }
    known = {f.name for f in fields(CommonAttentionMetadata)}
    return CommonAttentionMetadata(**{k: v for k, v in given.items() if k in known})


class ScratchCache:
    """One cache of keys and values that all attention `layers` share for the length of a forward; the engine's own has
    `own_blocks` blocks."""

    def __init__(self, layers: Sequence[Any], own_blocks: int) -> None:
        self._layers, self._own_blocks = layers, own_blocks
        self._cache = self._made(0)
        self._own: list[Any] | None = None  # while bound: the layers' own caches

    @contextmanager
    def bound(self, blocks: int) -> Iterator[None]:
        """Bind at least `blocks` blocks to every attention layer. They are zeroed first: kernels multiply the unused
        tail of a block by zero, and a tail that an earlier probe filled with NaN would spread to whoever came after."""
        if self._cache.numel() < int(self._layers[0].kv_cache.numel()) // self._own_blocks * blocks:
            self._cache = self._made(blocks)
        else:
            self._cache.zero_()
        self._own = [layer.kv_cache for layer in self._layers]
        try:
            self._bind([self._cache] * len(self._layers))
            yield
        finally:
            self._bind(self._own)
            self._own = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within this, every layer has its own cache again."""
        if self._own is None:
            yield
            return
        try:
            self._bind(self._own)
            yield
        finally:
            self._bind([self._cache] * len(self._layers))

    def _bind(self, caches: Sequence[Any]) -> None:
        for layer, cache in zip(self._layers, caches, strict=True):
            layer.kv_cache = cache

    def _made(self, blocks: int) -> torch.Tensor:
        """A cache of `blocks` blocks in the shape and memory order of the engine's own."""
        like = self._layers[0].kv_cache
        axis = next(i for i, n in enumerate(like.shape) if n == self._own_blocks)
        shape = [blocks if i == axis else n for i, n in enumerate(like.shape)]
        order = sorted(range(like.dim()), key=lambda i: like.stride(i), reverse=True)
        memory = torch.zeros([shape[i] for i in order], dtype=like.dtype, device=like.device)
        return memory.permute([order.index(i) for i in range(like.dim())])
