"""An adapter is a journal of scalars: python docs/examples/replay.py

A method is asked for probes and told their losses, here of a function of the parameters instead of an engine's. What
it was told is written down, a few numbers a step; the same method, told the same numbers, ends at the same bits.
"""

import numpy as np

from worker.runs.replay import Point, replay
from worker.types import Layout, Module, Params
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import Measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

STEPS = 300
LAYOUT = Layout(rank=2, alpha=4.0, modules=(Module("layer.q_proj", inputs=16, outputs=8),))


def loss(params: Params) -> float:
    """Half the squared distance of B A from a matrix of ones; B starts at 0."""
    a, b = LAYOUT.tensor(params, 0), LAYOUT.tensor(params, 1)
    return 0.5 * float(np.square(LAYOUT.scaling * b @ a - 1.0).mean())


def main() -> None:
    method = Descent(AdapterSpace(LAYOUT, seed=7), Estimator("two_point", 1e-2, 4), Sgd(), Schedule(0.3), clip=1.0)
    params, state = method.init()
    journal: list[tuple[float, ...]] = []
    print(f"loss {loss(params):.4f} at step 0")
    for _ in range(STEPS):
        heard = tuple(Measured(loss(probe.params)) for probe in method.ask(params, state, ()))
        params, state = method.tell(params, state, heard)
        journal.append(tuple(measured.loss for measured in heard))
    print(f"loss {loss(params):.4f} at step {state.step}")
    again: Point = replay(method, journal)
    assert np.array_equal(again.params, params)
    print(f"replayed from {sum(map(len, journal))} scalars: equal to the bit")


if __name__ == "__main__":
    main()
