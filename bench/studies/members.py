"""`python -m bench.studies.members`: what an adapter loses of the moves of EGGROLL's own members, at each step.

Modules of the demo's base (v and o of every layer), rank 8, members of rank 1, losses that are noise: nothing is
scored. `truncation` is the cut's relative error of the sum, `missed` the same error over the step's own move.
"""

import time
from pathlib import Path
from typing import Final

import numpy as np

MEMBERS: Final = (8, 16, 30)
STEPS, RANK = 3, 8


def main() -> None:
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base
    from worker.types import Layout, Module
    from worker.zo.method import Measured
    from worker.zo.methods import eggroll
    from worker.zo.methods.eggroll_members import Members
    from worker.zo.schedules import Schedule

    base = open_base(DEMO_MODEL, str(demo_model(Path(".onward"))))
    layout = Layout(RANK, 2.0 * RANK, tuple(Module(*m) for m in base.select(("v_proj", "o_proj"))))
    rng = np.random.default_rng(0)
    print("| members | `truncation` at steps 1, 2, 3 | `missed` at steps 1, 2, 3 | `tell`, processor seconds |")
    print("|---|---|---|---|")
    for count in MEMBERS:
        method = Members(layout, 0, 1, eggroll.weighing(1e-3, count, 1), Schedule(1e-2))
        params, state = method.init()
        begun = time.process_time()
        for _ in range(STEPS):
            params, state = method.tell(params, state, [Measured(x) for x in rng.standard_normal(count)])
        each = (time.process_time() - begun) / STEPS
        told = (", ".join(f"{x:.2f}" for x in column) for column in (state.truncation, state.missed))
        print(f"| {count} | {' | '.join(told)} | {each:.2f} |")


if __name__ == "__main__":
    main()
