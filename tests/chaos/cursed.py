"""A worker with the oracle's scorer and one fault in it, which a run of a certain rank finds. Knows no case.

ONWARD_CHAOS_CURSE is "<rank>:<what>[:<n>]": from the n-th batch on that holds such a trial, the process dies ("kill"),
the engine raises ("raise"), or every loss of any batch of several trials is off by 0.01 nats ("drift").
"""

import os
import sys
from collections.abc import Sequence

from worker.forwards import Scoring
from worker.oracle import torch_scorer
from worker.types import Loss, Trial

VARIABLE = "ONWARD_CHAOS_CURSE"


class Cursed(torch_scorer.TorchScorer):
    """The oracle, until it meets the rank."""

    def start(self, trials: Sequence[Trial]) -> Scoring:
        begun = super().start(trials)
        return begun.around(lambda act: act(), lambda: self._cursed(trials, begun.losses))

    def _cursed(self, trials: Sequence[Trial], losses: list[Loss]) -> list[Loss]:
        rank, what, nth = (*os.environ[VARIABLE].split(":"), "1")[:3]
        met = any(t.layout is not None and t.layout.rank == int(rank) for t in trials)
        self.met = getattr(self, "met", 0) + met
        if met and self.met >= int(nth):
            if what == "kill":
                os._exit(137)
            if what == "raise":
                raise RuntimeError("value cannot be converted to type float without overflow")
        if what == "drift" and self.met >= int(nth) and len(trials) > 1:
            return [off(loss) for loss in losses]
        return losses


def off(loss: Loss) -> Loss:
    """`loss`, 0.01 nats beside itself."""
    from dataclasses import replace

    return replace(loss, total=loss.total + 0.01 * loss.count)


def main() -> int:
    torch_scorer.TorchScorer = Cursed  # type: ignore[misc]
    from worker.__main__ import main as work

    return work()


if __name__ == "__main__":
    sys.exit(main())
