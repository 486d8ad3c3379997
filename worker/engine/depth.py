"""A forward that begins or ends in the middle of the model. Knows a model's layers; no adapters and no trials.

Below the first layer that an adapter acts on, hidden states are the base model's own, whatever the probe. So they are
taken once, where a forward of the bare base would enter that layer, and later forwards of the same tokens begin there.
Both stand in for one layer's `forward` and say from which to which layer the model goes, as a pipeline of several
devices does: what vLLM itself sets then, in every architecture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Depth:
    """The layers of a `model` in order. Between forwards, and where one is put `aside`, the model goes through all."""

    def __init__(self, model: torch.nn.Module) -> None:
        found = [m for m in model.modules() if hasattr(m, "start_layer") and hasattr(m, "layers")]
        if len(found) != 1:
            raise ValueError(f"the model has {len(found)} stacks of layers; one can be entered in the middle")
        stack: Any = found[0]
        self._stack = stack
        self._whole: tuple[int, int] = stack.start_layer, stack.end_layer

    @contextmanager
    def entering(self, layer: int, hidden: torch.Tensor) -> Iterator[None]:
        """Within this a forward begins at `layer`, into which `hidden` [tokens, width] goes."""
        own = type(self._stack.layers[layer]).forward

        def enter(*args: Any) -> Any:
            return own(self._stack.layers[layer], *_given(args, hidden))

        with self._between(layer, self._whole[1], layer, enter):
            yield

    @contextmanager
    def leaving(self, layer: int) -> Iterator[list[torch.Tensor]]:
        """Within this a forward ends before `layer`: what would go into it, [tokens, width], is in the list after each;
        what the forward itself returns means nothing."""
        taken: list[torch.Tensor] = []

        def leave(*args: Any) -> Any:
            taken.append(_sum(args))
            return args[0] if len(args) == 1 else args[1:3]

        with self._between(self._whole[0], layer + 1, layer, leave):
            yield taken

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within this the model goes through all of its layers, each doing what is its own."""
        bounds = self._stack.start_layer, self._stack.end_layer
        instead = [vars(layer).pop("forward", None) for layer in self._stack.layers]
        self._stack.start_layer, self._stack.end_layer = self._whole
        try:
            yield
        finally:
            self._stack.start_layer, self._stack.end_layer = bounds
            for layer, forward in zip(self._stack.layers, instead, strict=True):
                if forward is not None:
                    layer.forward = forward

    @contextmanager
    def _between(self, first: int, end: int, at: int, forward: Callable[..., Any]) -> Iterator[None]:
        layer = self._stack.layers[at]
        self._stack.start_layer, self._stack.end_layer, layer.forward = first, end, forward
        try:
            yield
        finally:
            self._stack.start_layer, self._stack.end_layer = self._whole
            vars(layer).pop("forward", None)


def _sum(args: tuple[Any, ...]) -> torch.Tensor:
    """What enters a layer: (hidden) in OPT, (positions, hidden, residual) elsewhere, where the two are added first."""
    if len(args) == 1:
        hidden: torch.Tensor = args[0]
        return hidden.clone()
    _, hidden, residual = args
    return hidden.clone() if residual is None else hidden + residual


def _given(args: tuple[Any, ...], hidden: torch.Tensor) -> tuple[Any, ...]:
    # A layer may write into what it is given, and what is kept is read again.
    return (hidden.clone(),) if len(args) == 1 else (args[0], hidden.clone(), None)
