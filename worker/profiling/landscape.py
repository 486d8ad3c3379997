"""Losses and gradients of rows at params: what profiles are made from. Knows trials and a scorer; no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.scoring.scorer import Scorer
from worker.types import Example, Layout, Params, Trial


class Landscape(Protocol):
    """The mean loss of some rows, by their numbers, nats."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    def loss(self, params: Params, rows: Sequence[int]) -> float:
        """At `params`, float32 [P]."""
        ...

    def gradient(self, params: Params, rows: Sequence[int]) -> Params:
        """Its derivative by every parameter, float32 [P]."""
        ...


@dataclass(frozen=True)
class Scored:
    """Rows that a scorer with autograd scores."""

    scorer: Scorer
    layout: Layout
    examples: Sequence[Example]
    objective: str

    @property
    def rows(self) -> int:
        return len(self.examples)

    def loss(self, params: Params, rows: Sequence[int]) -> float:
        return self.scorer.score([self._trial(params, rows, gradient=False)])[0].mean

    def gradient(self, params: Params, rows: Sequence[int]) -> Params:
        found = self.scorer.score([self._trial(params, rows, gradient=True)])[0].gradient
        if found is None:
            raise ValueError("this scorer has no gradients")
        return found

    def _trial(self, params: Params, rows: Sequence[int], gradient: bool) -> Trial:
        seen = tuple(self.examples[row] for row in rows)
        return Trial(self.layout, params, seen, self.objective, scope="profiles", gradient=gradient)
