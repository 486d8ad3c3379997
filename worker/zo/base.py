"""What a method is: two pure functions on a flat parameter vector. Knows arithmetic only."""

from typing import Protocol, TypeVar

from worker.types import Losses, Params

S = TypeVar("S")


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
