"""Which ending a run has come to, if any: by what it is, what is wished, what it cost and whose it is."""

from dataclasses import dataclass, field

import pytest

from worker.slices.ending import Failed, Finished, Lost, Obeyed, ending


@dataclass(frozen=True)
class Budgeted:
    token_budget: int | None = None


@dataclass(frozen=True)
class AsIf:
    """What an ending depends on of a run."""

    failed: str | None = None
    done: bool = False
    step: int = 3
    spec: Budgeted = field(default_factory=Budgeted)


BROKEN, DONE, GOES_ON = AsIf(failed="no loss was finite", done=True), AsIf(done=True), AsIf()
DEAR = AsIf(spec=Budgeted(100))


@pytest.mark.parametrize(
    "run, lost, wish, scored, wanted",
    [
        (GOES_ON, False, None, 10**9, None),
        (DONE, False, None, 0, Finished()),
        (BROKEN, False, None, 0, Failed("nonfinite_loss", "no loss was finite")),
        (GOES_ON, False, "pause", 0, Obeyed("pause")),
        (GOES_ON, False, "cancel", 0, Obeyed("cancel")),
        (DEAR, False, None, 100, None),
        (DEAR, False, None, 101, Failed("token_budget", "the budget of 100 scored tokens was spent at step 3")),
        (DEAR, False, "pause", 101, Obeyed("pause")),
        (DONE, False, "cancel", 0, Obeyed("cancel")),
        (DONE, False, "pause", 0, Finished()),
        (BROKEN, False, "cancel", 0, Failed("nonfinite_loss", "no loss was finite")),
        (GOES_ON, True, None, 0, Lost()),
        (DONE, True, "cancel", 0, Lost()),
        (BROKEN, True, None, 0, Lost()),
    ],
)
def test_how_a_run_ends(run, lost, wish, scored, wanted):
    assert ending(run, lost=lost, wish=wish, scored=scored) == wanted
