"""What a method is: two pure functions on a flat parameter vector. Knows arithmetic only, and no method's own state."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from worker.types import Params


@dataclass(frozen=True)
class Probe:
    """Adapter parameters to be scored on the step's minibatch, float32 [P], or on other `rows`: places of the job's
    walk through the rows it trains on, of which the first n are a chance draw. With a `tangent`, float32 [P], the
    loss's derivative along it is wanted too; with `gradient` its derivative by every parameter from tensor `since` of
    the layout on, and 0 before. Only a scorer with autograd has these."""

    params: Params
    tangent: Params | None = None
    gradient: bool = False
    since: int = 0
    rows: Sequence[int] | None = None


@dataclass(frozen=True)
class Measured:
    """What a probe's trial gave: its mean loss, nats, float64; not finite where the engine's answer was not. `slope` is
    the loss's derivative along the probe's tangent, float64, and `gradient` that by its params, float32 [P]: None where
    they were not asked for."""

    loss: float
    slope: float | None = None
    gradient: Params | None = None


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

    @property
    def back(self) -> int:
        """Steps that a run has taken back: see `gone_back`."""
        ...


S = TypeVar("S", bound=State)


class Method(Protocol[S]):
    """ask(params, state, heard) -> probes, in one or several phases; tell(params, state, heard) -> (params, state).

    Both are pure and deterministic to the bit on every machine: noise is regenerated from (seed, step, probe, tensor),
    nothing is perturbed in place. The journal has what the whole step heard, so that `tell` alone replays it.
    """

    @property
    def most(self) -> int:
        """Probes of a step at most, over all its phases, in forward passes: what it is priced by. A probe with a
        gradient counts as `worker.types.GRADIENT` of them, one with a tangent as `TANGENT`."""
        ...

    @property
    def numbers(self) -> int:
        """Of the journal's row for each probe: 1, its loss; 2, its loss and its slope along its tangent."""
        ...

    @property
    def replays(self) -> bool:
        """Whether `tell` needs nothing but the journal's rows. Where it needs gradients, points are kept instead."""
        ...

    def init(self) -> tuple[Params, S]:
        """The adapter and state before step 0."""
        ...

    def halved(self, times: int) -> "Method[S]":
        """The same at half the learning rate, and that so many `times`."""
        ...

    def ask(self, params: Params, state: S, heard: Sequence[Measured]) -> list[Probe]:
        """The probes of the step's next phase, after what it has `heard` so far, in the order asked: nothing at first,
        when there is at least one probe. No probes: the step is complete."""
        ...

    def tell(self, params: Params, state: S, heard: Sequence[Measured]) -> tuple[Params, S]:
        """Params and state after a complete step. How its phases divide `heard` is a function of `heard`. A step that
        heard or would lead to anything not finite changes nothing and is counted: `left_out`.

        Raises ValueError for measures that are not as many as were asked."""
        ...


def gone_back(origin: S, step: int) -> S:
    """The state of a run that goes back to `origin` and takes step number `step` next. Its noise is fresh, for that
    counts all steps; whatever else depends on the steps behind it is as it was at `origin`."""
    return replace(origin, step=step, nonfinite=0, back=origin.back + step - origin.step)


def measured(row: Sequence[float], numbers: int = 1) -> tuple[Measured, ...]:
    """What was heard of a step, from its journal row, which has so many `numbers` a probe. Raises ValueError for a row
    that is no multiple of them long."""
    values = [float(x) for x in row]
    if numbers == 1:
        return tuple(Measured(loss) for loss in values)
    return tuple(Measured(loss, slope) for loss, slope in zip(values[::2], values[1::2], strict=True))


def numbers_of(heard: Sequence[Measured]) -> tuple[float, ...]:
    """The journal row of a step that `heard` this: what `measured` reads."""
    return tuple(x for m in heard for x in ((m.loss,) if m.slope is None else (m.loss, m.slope)))


def finite(*vectors: Params) -> bool:
    """Whether every entry of every vector is."""
    return all(bool(np.isfinite(vector).all()) for vector in vectors)


def left_out(state: S) -> S:
    """The state after a step that changed nothing because something was not finite."""
    return replace(state, step=state.step + 1, skipped=state.skipped + 1, nonfinite=state.nonfinite + 1)
