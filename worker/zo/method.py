"""What a method is: two pure functions on a flat parameter vector. Knows arithmetic only."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from worker.types import Losses, Params

S = TypeVar("S")


@dataclass(frozen=True)
class State:
    """What a method remembers besides the parameters. Every method shares it, so that a snapshot needs no cases."""

    step: int = 0  # steps told
    skipped: int = 0  # steps left out because a loss was not finite
    nonfinite: int = 0  # of them, those in a row up to now
    windows: int = 0  # LOZO: times V was drawn
    truncation: tuple[float, ...] = ()  # LOZO with recompress: relative error of each truncation, Frobenius norm
    buffers: tuple[Params, ...] = ()  # the optimizer's vectors, float32 [P] each


class Method(Protocol[S]):
    """ask(params, state) -> probes; tell(params, state, losses) -> (params, state). Both pure and deterministic to the
    bit on every machine: noise is regenerated from (seed, step, probe, tensor), nothing is perturbed in place."""

    @property
    def width(self) -> int:
        """Probes a step."""
        ...

    def init(self) -> tuple[Params, S]:
        """The adapter and state before step 0."""
        ...

    def ask(self, params: Params, state: S) -> list[Params]: ...

    def tell(self, params: Params, state: S, losses: Losses) -> tuple[Params, S]: ...
