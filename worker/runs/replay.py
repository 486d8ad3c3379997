"""From a journal to the point it leads to, with no forward pass. Pure; knows no engine, no SQL and no disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.types import Params
from worker.zo.method import State


@dataclass(frozen=True)
class Point:
    """An adapter and its method's state after `state.step` steps."""

    params: Params
    state: State


def replay(spec: JobSpec, base: Base, journal: Sequence[Sequence[float]], start: Point | None = None) -> Point:
    """The point after the whole of `journal` (losses of step 0, 1, ...), from `start` where given. No forward pass.

    Equal to the bit to what training had, on any machine: tell is pure and its noise counter-based.
    """
    method = recipes.method(spec, recipes.layout(spec, base))
    if start is None:
        params, state = method.init()
    else:
        params, state = start.params, start.state
    for losses in journal[state.step :]:
        params, state = method.tell(params, state, np.asarray(losses, dtype=np.float64))
    return Point(params, state)
