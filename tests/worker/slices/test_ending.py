"""Which ending a run has come to, if any: by what it is, what is wished, what it cost and whose it is."""

from dataclasses import dataclass, field

import pytest

from db.contract.rows.jsonl import BadRow
from worker.slices.ending import (
    Failed,
    Finished,
    Killed,
    Lost,
    Obeyed,
    Out,
    Released,
    Suspected,
    Verdict,
    ending,
    engine_raised,
    run_raised,
)
from worker.types import EngineGone, EngineOff


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


def asks_nothing() -> bool:
    raise AssertionError("the engine's canary need not be asked")


@pytest.mark.parametrize(
    "error, alone, sound, wanted",
    [
        (ValueError("rank"), True, asks_nothing, Verdict(Failed("engine_refused", "rank"))),
        (ValueError("rank"), False, asks_nothing, Verdict(Suspected())),
        (EngineOff("nan"), True, asks_nothing, Verdict(Released(), Out("canary", "nan"))),
        (EngineOff("nan"), False, asks_nothing, Verdict(Released(), Out("canary", "nan"))),
        (EngineGone("gone"), True, asks_nothing, Verdict(Released(), Out("engine", "gone"))),
        (EngineGone("gone"), False, asks_nothing, Verdict(Released(), Out("engine", "gone"))),
        (OSError("x\ny"), True, lambda: True, Verdict(Failed("engine_refused", "OSError: x"))),
        (MemoryError(), False, lambda: True, Verdict(Suspected())),
        (OSError("x"), True, lambda: False, Verdict(Killed(), Out("engine", "OSError: x"))),
        (OSError("x"), False, lambda: False, Verdict(Suspected(), Out("engine", "OSError: x"))),
    ],
)
def test_whose_fault_it_is_that_the_engine_raised(error, alone, sound, wanted):
    assert engine_raised(error, alone=alone, sound=sound) == wanted


@pytest.mark.parametrize(
    "error, alone, code",
    [
        (BadRow(1, "no row"), False, "unreadable_rows"),
        (MemoryError(), True, "out_of_memory"),
        (MemoryError(), False, None),
        (KeyError("x"), True, "internal_error"),
        (KeyError("x"), False, None),
    ],
)
def test_whose_fault_it_is_that_a_run_could_not_be_loaded(error, alone, code):
    verdict = run_raised(error, alone=alone)
    assert verdict.worker is None
    assert (verdict.runs.code if isinstance(verdict.runs, Failed) else None) == code
    assert code is not None or verdict.runs == Suspected()
