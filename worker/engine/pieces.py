"""A scoring forward's products in pieces of rows, so that no stretch of it is long. Knows layers, no trials.

How many rows a piece has follows from the base's sizes alone, never from a clock or from whether anyone is served: what
a forward comes to is the same on every day. Adapters act piece by piece too (`worker.engine.lora`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from worker.engine.lora import GroupedLora

# Through all linears: a tenth of what a short prompt takes, and so the longest that it need wait for a piece.
TOKENS = 5
# Multiplications, a millisecond of a core or two: what takes no longer is no stretch, and is left whole. So on a base
# of some million parameters a row's loss depends on nobody that shares its wave, to the bit, where cuts fall by place.
FLOOR = 1 << 25
LEAST = 16  # rows: a product of fewer costs a quarter more a row and above (bench/NOTES.md)


class Pieces:
    """What one stretch of a forward may compute on a base of these `linears` (inputs, outputs)."""

    def __init__(self, lora: GroupedLora, linears: Mapping[str, tuple[int, int]]) -> None:
        self._lora = lora
        self._work = max(FLOOR, TOKENS * sum(i * o for i, o in linears.values()))

    def rows(self, size: int) -> int:
        """How many rows of a product with `size` multiplications each are a piece."""
        return max(LEAST, self._work // size)

    def pairs(self, size: int) -> int:
        """How many pairs of tokens one call of an attention of this `size` (heads by their width) may see. It has two
        products a pair, and half the rate of a linear."""
        return max(1, self._work // (4 * size))

    def install(self, model: torch.nn.Module, linears: Mapping[str, Any]) -> None:
        """Let `model` compute its gated MLPs, and vLLM's `linears` with adapters, piece by piece."""
        for linear in linears.values():
            linear.apply = self._cut(linear.apply, linear)
        module: Any
        for module in model.modules():
            if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
                module.forward = self._cut(module.forward, module.gate_up_proj)

    def _cut(self, own: Callable[..., torch.Tensor], linear: Any) -> Callable[..., torch.Tensor]:
        return partial(self._in_pieces, own, self.rows(linear.input_size * sum(linear.output_slices)))

    def _in_pieces(self, own: Callable[..., torch.Tensor], rows: int, x: torch.Tensor, *args: Any) -> torch.Tensor:
        """`own` of x [tokens, inputs], which computes row by row."""
        if self._lora.worn is None or len(x) <= rows:
            return own(x, *args)
        out: torch.Tensor | None = None
        for start in range(0, len(x), rows):
            with self._lora.rows_from(start):
                part = own(x[start : start + rows], *args)
            out = part.new_empty(len(x), *part.shape[1:]) if out is None else out
            out[start : start + rows] = part
        assert out is not None
        return out
