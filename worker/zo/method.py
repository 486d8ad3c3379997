"""What a method is: two pure functions on a flat parameter vector. Knows arithmetic only, and no method's own state."""

from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeVar

from worker.types import Losses, Params


class State(Protocol):
    """What every method remembers. Each has a frozen dataclass of its own with these fields and what else it needs:
    arrays, scalars and tuples of them, so that a snapshot needs no case by method."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def step(self) -> int:
        """Steps told."""
        ...

    @property
    def skipped(self) -> int:
        """Steps left out because something was not finite."""
        ...

    @property
    def nonfinite(self) -> int:
        """Of them, those in a row up to now."""
        ...


S = TypeVar("S", bound=State)


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


def left_out(state: S) -> S:
    """The state after a step that changed nothing because something was not finite."""
    return replace(state, step=state.step + 1, skipped=state.skipped + 1, nonfinite=state.nonfinite + 1)
