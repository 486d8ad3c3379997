"""From a journal to the point it leads to, with no forward pass. Pure; knows no engine, no SQL and no disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.types import Params
from worker.zo.method import Method, State, measured


@dataclass(frozen=True)
class Point:
    """An adapter and its method's state after `state.step` steps."""

    params: Params
    state: State


def replay(method: Method[Any], journal: Sequence[Sequence[float]], start: Point | None = None) -> Point:
    """The point after the whole of `journal` (losses of step 0, 1, ...), from `start` where given. No forward pass.

    Equal to the bit to what training had, on any machine: tell is pure and its noise counter-based. Raises ValueError
    for a row that is not what the step asked for, and for a method that does not replay.
    """
    if not method.replays and len(journal) > (0 if start is None else start.state.step):
        raise ValueError("its steps followed from gradients, which no journal has: it goes on from points kept whole")
    params, state = method.init() if start is None else (start.params, start.state)
    for row in journal[state.step :]:
        params, state = method.tell(params, state, measured(row, method.numbers))
    return Point(params, state)
