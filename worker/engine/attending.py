"""Standing in for a model's attention layers while something is scored. Knows layers and where sequences lie; no
adapters and no trials."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from vllm.forward_context import get_forward_context

from worker.engine.prefill import Prefill


class Attending:
    """The attention `layers` of a model, by these `names`. What they do otherwise they do again once it is over, and in
    every pause."""

    def __init__(self, layers: Sequence[Any], names: Sequence[str], pause: Callable[[], None]) -> None:
        self._layers, self._names, self._pause = layers, names, pause

    @contextmanager
    def by(self, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Within this, attention layer i does `forward(i, query, key, value)`."""
        try:
            for number, layer in enumerate(self._layers):
                layer.forward = partial(forward, number)
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within this, layers do what is their own."""
        instead = [vars(layer).pop("forward", None) for layer in self._layers]
        try:
            yield
        finally:
            for layer, forward in zip(self._layers, instead, strict=True):
                if forward is not None:
                    layer.forward = forward

    def own(self, number: int, of: Prefill, *given: torch.Tensor) -> torch.Tensor:
        """A layer's own attention [tokens, width] of query, key and value `given` of whole sequences, part by part, a
        pause after each."""
        layer = self._layers[number]
        outs = []
        for part in of.parts:
            if len(of.parts) > 1:
                context = get_forward_context()
                context.attn_metadata, context.slot_mapping = part.told(self._names)
            outs.append(type(layer).forward(layer, *(x[part.start : part.stop] for x in given)))
            self._pause()
        out: torch.Tensor = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out
