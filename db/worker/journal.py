"""The journal of a run and what its worker commits: every write proves its claim first. Knows no engine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, undefer

from db import audit, files, profiles, transitions, usage
from db.contract.history import History, Restart
from db.contract.methods.profiled import profile_of
from db.contract.spec import JobSpec, stored
from db.deposits import Deposited
from db.ids import new_id
from db.tables import Adapter, Evaluation, Job, JournalStep
from db.worker import points, reports, results
from db.worker.leases import Claim, lock


@dataclass(frozen=True)
class Step:
    """Step number `step` (from 0) of a run: its losses in the order the probes were asked, what else its row has
    (`db/contract/journal_row.py`), and its scored tokens."""

    step: int
    losses: list[float]
    tokens: int


@dataclass(frozen=True)
class Evaluated:
    """The adapter after `step` steps on `rows` held-out rows, which cost `tokens` scored tokens. `noise` is the
    standard error of the loss's difference to step 0 (None where it is not known), `diverged` says that the difference
    is more than noise, and `newly` that the evaluation before had not; at step 0 `terms` are each row's sum."""

    step: int
    loss: float
    accuracy: float | None  # None: not measured
    rows: int
    tokens: int
    noise: float | None = None
    diverged: bool = False
    newly: bool = False
    terms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Published:
    """An adapter on disk: `step` steps replayed, SHA-256 (hex) of its safetensors file, the directory as a tar, which
    may `lie` in a store already, receipt.json where one could be made, and its `drift`: mean KL to the base in nats a
    token, None where it was not measured."""

    name: str
    step: int
    sha256: str
    path: str
    tar: bytes
    receipt: bytes | None = None
    lies: Deposited | None = None
    drift: float | None = None


class NotWhole(LookupError):
    """Steps of a journal are not there any more, or were never taken."""


def flush(
    session: Session,
    claim: Claim,
    steps: Sequence[Step],
    evaluations: Sequence[Evaluated] = (),
    best: tuple[int, float] | None = None,
    estimated_finish: datetime | None = None,
    restarts: Sequence[Restart] = (),
    kept: Sequence[points.Kept] = (),
) -> None:
    """Commits steps, evaluations, the best (step, held-out loss) so far, all restarts so far, and points of a run whose
    journal is not enough: its rows come with the point after the last of them. Renews nothing.

    Raises LeaseLost, and ValueError when the steps do not continue the journal, or an evaluation or a restart is ahead
    of it, or rows are ahead of what the run can go on from.
    """
    job = lock(session, claim)
    after = _follows(job, steps, [*(e.step for e in evaluations), *(r.at for r in restarts)])
    if steps and claim.spec.method.replay == "snapshots" and after not in [point.step for point in kept]:
        raise ValueError(f"{job.id}: step {after} is no point that it can go on from")
    mark = {"job_id": job.id, "tenant_id": job.tenant_id, "token": claim.token}
    if steps:
        session.execute(insert(JournalStep), [{**mark, **asdict(s)} for s in steps])
        job.step = after
    # Whoever takes over measures again what the last holder had not committed: the first measurement stays.
    new = {e.step: e for e in evaluations if _record(session, mark, e)}
    spent = sum(s.tokens for s in steps) + sum(e.tokens for e in new.values())
    job.scored_tokens += spent
    if best is not None:
        job.best_step, job.best_loss = best
    points.keep(session, job, kept, job.best_step)
    if estimated_finish is not None:
        job.estimated_finish = estimated_finish
    again = restarts[len(job.restarts) :]
    if again:
        job.restarts = [asdict(r) for r in restarts]
    reports.flushed(session, job, steps, [new[step] for step in sorted(new)], again)
    session.flush()
    usage.charge(session, job.model, job.tenant_id, spent)


def _follows(job: Job, steps: Sequence[Step], beside: Sequence[int]) -> int:
    """The job's step after these; `beside` are those of what is told with them."""
    after = job.step + len(steps)
    if [s.step for s in steps] != list(range(job.step, after)):
        raise ValueError(f"{job.id} is at step {job.step}: it cannot take steps {[s.step for s in steps]}")
    if any(step > after for step in beside):
        raise ValueError(f"{job.id}: an evaluation or a restart is ahead of step {after}")
    return after


def read(session: Session, claim_or_job_id: Claim | str, upto: int | None = None) -> list[list[float]]:
    """The losses of steps 0, 1, … in order, `upto` of them at most."""
    job_id = claim_or_job_id if isinstance(claim_or_job_id, str) else claim_or_job_id.job_id
    wanted = select(JournalStep.losses).where(JournalStep.job_id == job_id).order_by(JournalStep.step)
    if upto is not None:
        wanted = wanted.where(JournalStep.step < upto)
    return [list(losses) for losses in session.scalars(wanted)]


def history(session: Session, job_id: str, upto: int | None = None) -> History:
    """What the adapter of the job after `upto` steps, or after all that are committed, follows from. Raises LookupError
    for a job that is not there, NotWhole where its journal or its parent's, or a profile of theirs, is not."""
    row = session.scalars(select(Job.spec).where(Job.id == job_id)).one_or_none()
    if row is None:
        raise LookupError(f"there is no job {job_id}")
    spec = stored(row)
    losses = read(session, job_id, upto)
    if upto is not None and len(losses) != upto:
        raise NotWhole(f"{job_id} has {len(losses)} of {upto} steps in its journal")
    parent = None if spec.parent is None else history(session, spec.parent.job, spec.parent.step)
    kept = session.scalars(select(Job.restarts).where(Job.id == job_id)).one()
    restarts = tuple(Restart(**r) for r in kept)
    return History(spec, losses, restarts, parent, _profile(session, job_id, spec)).upto(len(losses))


def _profile(session: Session, job_id: str, spec: JobSpec) -> bytes | None:
    wanted = profile_of(spec.method)
    data = None if wanted is None else profiles.content(session, wanted)
    if wanted is not None and data is None:
        raise NotWhole(f"the profile {wanted} of {job_id} is not there")
    return data


def committed_at(session: Session, claim: Claim) -> datetime | None:
    """When the last of its steps was, None before the first."""
    wanted = select(JournalStep.created_at).where(
        JournalStep.job_id == claim.job_id, JournalStep.step == claim.step - 1
    )
    return session.scalar(wanted)


def evaluations(session: Session, claim: Claim) -> list[Evaluated]:
    """Those that are committed, in order."""
    wanted = select(Evaluation).where(Evaluation.job_id == claim.job_id).order_by(Evaluation.step)
    found = session.scalars(wanted.options(undefer(Evaluation.terms)))
    return [
        Evaluated(e.step, e.loss, e.accuracy, e.rows, e.tokens, e.noise, e.diverged, terms=tuple(e.terms or ()))
        for e in found
    ]


def fail(session: Session, claim: Claim, code: str, message: str, best: Published | None = None) -> None:
    """Ends the job as failed with the reason, keeping its best checkpoint when given. Raises LeaseLost."""
    job = lock(session, claim)
    results.measure(session, job)
    if best is not None:
        _publish(session, job, claim, best)
    transitions.fail(session, job, code, message)
    session.flush()


def finish(session: Session, claim: Claim, adapter: Published, stopped: str | None = None) -> bool:
    """Ends the job as succeeded with its adapter, in one transaction; or False: as cancelled and without, where its
    tenant was told that it would be. `stopped` says why steps miss. Raises LeaseLost, or ValueError: steps miss without
    a reason."""
    job = lock(session, claim)
    results.measure(session, job)
    if job.wish == "cancel":
        transitions.cancel(session, job)
        session.flush()
        return False
    if stopped is not None:
        reports.stopped(session, job, stopped, adapter.step)
    elif job.step != job.total_steps:
        raise ValueError(f"{job.id} is at step {job.step} of {job.total_steps}")
    _publish(session, job, claim, adapter)
    if stopped is not None:
        job.stopped = {"reason": stopped, "step": job.step}
    transitions.succeed(session, job)
    session.flush()
    return True


def _record(session: Session, mark: dict[str, Any], evaluated: Evaluated) -> bool:
    row = {**mark, **asdict(evaluated), "terms": list(evaluated.terms) or None}
    del row["newly"]
    fresh = upsert(Evaluation).values(**row).on_conflict_do_nothing().returning(Evaluation.step)
    return session.scalar(fresh) is not None


def _publish(session: Session, job: Job, claim: Claim, adapter: Published) -> None:
    about: dict[str, Any] = {"purpose": "fine-tune-results", "format": None, "rows": 0}
    tar = adapter.lies or [adapter.tar]
    file = files.create(job.tenant_id, session, filename=f"{job.id}.tar", chunks=tar, **about)
    results.keep(session, job, "adapter", file.id)
    if adapter.receipt is not None:
        receipt = files.create(job.tenant_id, session, filename="receipt.json", chunks=[adapter.receipt], **about)
        results.keep(session, job, "receipt", receipt.id)
    adapter_id = new_id("adpt-")
    session.add(
        Adapter(
            id=adapter_id,
            tenant_id=job.tenant_id,
            job_id=job.id,
            name=adapter.name,
            step=adapter.step,
            sha256=adapter.sha256,
            path=adapter.path,
            file_id=file.id,
            token=claim.token,
        )
    )
    reports.published(session, job, adapter.step, adapter.name, adapter.drift)
    said = {"job": job.id, "step": adapter.step, "sha256": adapter.sha256}
    audit.write(session, job.tenant_id, "adapter.create", adapter_id, said, claim.worker_id)
