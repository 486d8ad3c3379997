"""Every way in which a job changes its state: one table, and one function each. Asks no one for the right to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from sqlalchemy import delete, func, null, update
from sqlalchemy.orm import Session

from db import events, files
from db.contract.refusal import Refusal
from db.tables import Job, Lease, Point, Tenant, Validation

Wish = Literal["pause", "cancel"]
Condition = Literal[
    "validating_files",
    "queued",
    "running",
    "being paused",
    "being cancelled",
    "paused",
    "succeeded",
    "failed",
    "cancelled",
]  # a job's state, and for a running one what is wished of it
Name = Literal[
    "admit", "claim", "release", "wish pause", "wish cancel", "withdraw", "pause", "resume", "cancel", "succeed", "fail"
]
WISHED: Final[Mapping[Wish, Condition]] = {"pause": "being paused", "cancel": "being cancelled"}


@dataclass(frozen=True)
class Transition:
    """A job in a condition of `before` comes to be in `after`. `changes` are the columns that change beside state and
    wish; `word` is what the job becomes, for whoever is refused. Where `lease_ends`, its lease is gone."""

    word: str
    before: tuple[Condition, ...]
    after: Condition
    changes: tuple[str, ...] = ()
    lease_ends: bool = False


ENDS: Final = ("finished_at", "estimated_finish")
HELD: Final[tuple[Condition, ...]] = ("running", "being paused", "being cancelled")
DECIDED: Final = (
    "spec", "spec_version", "request", "total_steps", "price_tokens", "autograd", "decided_at", "expected_start",
)  # fmt: skip
TABLE: Final[Mapping[Name, Transition]] = {
    "admit": Transition("queued", ("validating_files",), "queued", DECIDED),
    # A running job is claimed again where its lease has run out.
    "claim": Transition("claimed", ("queued", "running"), "running", ("fence", "started_at")),
    "release": Transition("released", ("running",), "queued", lease_ends=True),
    "wish pause": Transition("paused", ("running",), "being paused"),
    "wish cancel": Transition("cancelled", ("running", "being paused"), "being cancelled"),
    "withdraw": Transition("resumed", ("being paused",), "running"),
    "pause": Transition("paused", ("queued", "running", "being paused"), "paused", lease_ends=True),
    "resume": Transition("resumed", ("paused",), "queued"),
    "cancel": Transition(
        "cancelled", ("validating_files", "queued", "paused", *HELD), "cancelled", ENDS, lease_ends=True
    ),
    # A run may come to its end before its worker has seen the wish; an accepted cancel is kept all the same.
    "succeed": Transition("succeeded", ("running", "being paused"), "succeeded", ENDS, lease_ends=True),
    "fail": Transition("failed", ("validating_files", "queued", *HELD), "failed", ("error", *ENDS), lease_ends=True),
}


class WrongState(Exception):
    """A job in condition `state` cannot become `wanted`."""

    def __init__(self, state: str, wanted: str) -> None:
        super().__init__(f"the job is {state} and cannot become {wanted}")
        self.state, self.wanted = state, wanted


# Every function below takes a job whose row is locked, and raises WrongState where the table has no such transition.


def validate(job: Job) -> None:
    """A new job, not yet in the database, begins as one whose files are being validated."""
    job.state, job.decided_at, job.price_tokens = "validating_files", null(), 0


def admit(session: Session, job: Job, decided: Mapping[str, Any]) -> None:
    """Its rows have decided it: into the queue, with `decided`, columns that stay as they are from now on."""
    _move(job, "admit")
    for name, value in decided.items():
        setattr(job, name, value)
    job.decided_at = func.clock_timestamp()
    _end_validation(session, job)


def refuse(session: Session, job: Job, why: Refusal) -> None:
    """Ended before it was queued: its rows, or a quota, have decided against it."""
    _move(job, "fail")
    job.error = {"code": why.code, "message": why.message, "param": why.field}
    events.write(session, job, f"Job failed before it was queued: {why.message}", "error", {"code": why.code})
    _end(session, job)


def claim(session: Session, job: Job) -> None:
    """It runs under a new fencing token, which the caller leases."""
    _move(job, "claim")
    if job.started_at is None:
        job.started_at = func.clock_timestamp()
        events.write(session, job, "Job started")
    job.fence += 1


def release(session: Session, job: Job) -> None:
    """Back to the queue."""
    _move(job, "release")
    _end_lease(session, job)


def wish(job: Job, wanted: Wish) -> None:
    """Asks the holder of a running job for it, who obeys at its next step."""
    _move(job, "wish pause" if wanted == "pause" else "wish cancel")


def withdraw(job: Job) -> None:
    """Takes back a pause that was not yet obeyed."""
    _move(job, "withdraw")


def obey(session: Session, job: Job, wanted: Wish) -> None:
    """Pauses or cancels a job that no live lease holds, or whose holder does it."""
    act = pause if wanted == "pause" else cancel
    act(session, job)


def pause(session: Session, job: Job) -> None:
    """Out of the queue, until it is resumed."""
    _move(job, "pause")
    events.write(session, job, f"Job paused at step {job.step}")
    _end_lease(session, job)


def resume(job: Job) -> None:
    """Back to the queue."""
    _move(job, "resume")


def cancel(session: Session, job: Job) -> None:
    """Ended by its tenant's will."""
    _move(job, "cancel")
    events.write(session, job, f"Job cancelled at step {job.step}")
    _end(session, job)


def succeed(session: Session, job: Job) -> None:
    """Ended with all its steps taken."""
    _move(job, "succeed")
    events.write(session, job, f"Job succeeded: {job.step} steps, {job.scored_tokens} scored tokens")
    _end(session, job)


def fail(session: Session, job: Job, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
    """Ended with a reason that the tenant reads; `data` goes with the event."""
    _move(job, "fail")
    job.error = {"code": code, "message": message, "param": None}
    events.write(session, job, f"Job failed at step {job.step}: {message}", "error", {"code": code, **(data or {})})
    _end(session, job)


def condition(job: Job) -> Condition:
    """Where the job stands, in the table's words."""
    return cast(Condition, job.state) if job.wish is None else WISHED[cast(Wish, job.wish)]


def stored(wanted: Condition) -> tuple[str, Wish | None]:
    """State and wish of a job in this condition."""
    wishes = [wish for wish, wished in WISHED.items() if wished == wanted]
    return ("running", wishes[0]) if wishes else (wanted, None)


def _move(job: Job, name: Name) -> None:
    found = TABLE[name]
    if condition(job) not in found.before:
        raise WrongState(condition(job), found.word)
    job.state, job.wish = stored(found.after)


def _end(session: Session, job: Job) -> None:
    """Its tokens are spent, its lease goes, its points, and deleted files that only it needed."""
    job.finished_at, job.estimated_finish = func.clock_timestamp(), None
    spent = Tenant.spent_tokens + job.scored_tokens
    session.execute(update(Tenant).where(Tenant.id == job.tenant_id).values(spent_tokens=spent))
    _end_lease(session, job)
    session.execute(delete(Point).where(Point.job_id == job.id))
    if job.decided_at is None:
        _end_validation(session, job)
    files.purge(session, [f for f in (job.training_file, job.validation_file) if f is not None])


def _end_validation(session: Session, job: Job) -> None:
    session.flush()
    session.execute(delete(Validation).where(Validation.job_id == job.id))


def _end_lease(session: Session, job: Job) -> None:
    session.flush()
    session.execute(delete(Lease).where(Lease.job_id == job.id))
