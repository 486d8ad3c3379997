"""How a run's time with a worker ends, and whose fault it was, as values. Pure; knows no database, disk and lease."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from db.contract.rows.jsonl import BadRow
from db.store.seam import ObjectLost, StoreAway
from db.transitions import Wish
from db.worker.journal import NotWhole
from worker.adapters.parents import ParentChanged
from worker.runs.run import Run
from worker.types import EngineGone, EngineOff

SAID = 300  # characters of an exception that a tenant reads
Reason = Literal["disk", "store", "engine", "canary"]
PASSING: tuple[Reason, ...] = ("disk", "store")  # what may come back while the process goes on


@dataclass(frozen=True)
class Lost:
    """Its lease is another's: what is not committed is void."""


@dataclass(frozen=True)
class Finished:
    """All its steps are taken and its last evaluation is in."""


@dataclass(frozen=True)
class Failed:
    """It cannot go on, or must not; the tenant reads why."""

    code: str
    message: str


@dataclass(frozen=True)
class Obeyed:
    """Its tenant wishes it."""

    wish: Wish


@dataclass(frozen=True)
class Released:
    """Given back as it is: nothing is held against it that was not before."""


@dataclass(frozen=True)
class Cleared:
    """Given back in order, and no suspect any more."""


@dataclass(frozen=True)
class Suspected:
    """Given back: something failed in its company, and it is tried alone next."""


@dataclass(frozen=True)
class Killed:
    """Given back: the engine broke under it alone, which counts as a worker's death."""


Ending = Lost | Finished | Failed | Obeyed
Leaving = Released | Cleared | Suspected | Killed


@dataclass(frozen=True)
class Out:
    """The worker's fault: it is out of service for this reason. `message` is for its operator."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of every run that was there, and of the worker where the fault was its own."""

    runs: Failed | Leaving
    worker: Out | None = None


def ending(run: Run, *, lost: bool, wish: Wish | None, scored: int) -> Ending | None:
    """How the run ends as it now is, or None where it goes on. `scored` are all tokens that the job has cost.

    Nothing counts that a lost lease forbids to write. An accepted cancel is kept even by a run that is done; one that
    is done has no use for a pause.
    """
    budget = run.spec.token_budget
    if lost:
        return Lost()
    if run.failed is not None:
        return Failed("nonfinite_loss", run.failed)
    if wish == "cancel":
        return Obeyed(wish)
    if run.done:
        return Finished()
    if wish is not None:
        return Obeyed(wish)
    if budget is not None and scored > budget:
        return Failed("token_budget", f"the budget of {budget} scored tokens was spent at step {run.step}")
    return None


def engine_raised(error: Exception, *, alone: bool, sound: Callable[[], bool]) -> Verdict:
    """Whose fault it is that scoring a batch raised. Whether the engine is `sound` is asked where it matters.

    An engine that broke in company may have been broken by one of them, so that they are suspects too; where only the
    canary is off, nobody is.
    """
    if isinstance(error, EngineGone):
        return Verdict(Released(), Out("engine", str(error)))
    if isinstance(error, EngineOff):
        return Verdict(Released(), Out("canary", str(error)))
    if isinstance(error, ValueError) or sound():
        return Verdict(Failed("engine_refused", said(error)) if alone else Suspected())
    return Verdict(Killed() if alone else Suspected(), Out("engine", said(error)))


def run_raised(error: Exception, *, alone: bool) -> Verdict:
    """Whose fault it is that loading or ending one run raised, when neither database nor disk did."""
    if isinstance(error, StoreAway):
        return Verdict(Released(), Out("store", str(error)))
    if isinstance(error, ObjectLost):
        return Verdict(Failed("file_lost", f"{error}: upload the file again"))
    if isinstance(error, BadRow):
        return Verdict(Failed("unreadable_rows", str(error)))
    if isinstance(error, ParentChanged):
        return Verdict(Failed("parent_changed", str(error)))
    if isinstance(error, NotWhole):
        return Verdict(Failed("journal_gone", str(error)))
    if not alone:
        return Verdict(Suspected())
    if isinstance(error, MemoryError):
        return Verdict(Failed("out_of_memory", "this worker has not the memory for it, even alone"))
    return Verdict(Failed("internal_error", said(error)))


def said(error: Exception) -> str:
    """The first line of it."""
    line = str(error).partition("\n")[0][:SAID]
    return line if isinstance(error, ValueError) else f"{type(error).__name__}: {line}"
