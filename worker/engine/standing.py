"""Stands in for what attention layers do, forward by forward. Knows layers; no engine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


class Standing:
    """The attention `layers` of a model. Outside of its contexts each does what is its own."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers

    @contextmanager
    def doing(self, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Within this, layer i does `forward(i, query, key, value)`."""
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
