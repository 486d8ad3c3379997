"""Why a job waits and when it may begin, as its tenant may know it. Changes no row; names no other tenant."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import events, outlook, usage, workers
from db.contract.spec import SPEC_VERSION
from db.outlook import Outlook
from db.tables import Job, Lease, Tenant, Validation
from db.workers import Rates

Reason = Literal["validating", "turn", "no_worker", "newer_worker", "daily_tokens", "max_running", "suspect", "paused"]
ASKED = ("validating_files", "queued", "paused")
SLOWEST = 1e-6  # scored tokens a second below which nothing is foretold


@dataclass(frozen=True)
class Estimate:
    """Seconds until a job has ended, if all goes on as it does. Not `measured`: no worker of its base that lives has
    scored yet, and it is a guess from one before."""

    seconds: float
    measured: bool


@dataclass(frozen=True)
class Waits:
    """Why a job waits now. `estimated_start`, of its next steps, and `estimate` are None where nothing can be said;
    `validated_rows` where its files are not being validated."""

    reason: Reason
    message: str
    estimated_start: datetime | None = None
    estimate: Estimate | None = None
    validated_rows: int | None = None


@dataclass(frozen=True)
class Queue:
    """A tenant's queue at a model: how it goes there, what the tenant may, and what it has of it now."""

    outlook: Outlook
    served: bool
    tenant: Tenant
    running: int
    today: int
    now: datetime
    counted: bool  # among the weights that were noted
    rates: Rates | None = None
    autograd: bool = False  # of jobs that need derivatives

    @property
    def part(self) -> float:
        """The tenant's of the model's places and of its rate: its weight's, among those that have jobs."""
        now, own = self.outlook, self.tenant
        return own.weight / max(now.weights + (0.0 if self.counted else own.weight), own.weight)


@dataclass(frozen=True)
class Ahead:
    """What of a tenant's own goes before a job: `jobs` of them, whose price is `tokens` scored tokens. The job itself
    may be `newer`, of a spec that no worker of this release reads, or a `suspect`, to be tried alone."""

    jobs: int = 0
    tokens: int = 0
    newer: bool = False
    suspect: bool = False


def waiting(tenant: str, session: Session, jobs: Sequence[Job]) -> dict[str, Waits]:
    """Why each of the tenant's `jobs` waits, by its id; those that run or have ended are missing."""
    wanted = [job for job in jobs if job.state in ASKED]
    found = _validating(tenant, session, [job.id for job in wanted if job.state == "validating_files"])
    wanted = [job for job in wanted if job.id not in found]
    for model, autograd in {(job.model, job.autograd) for job in wanted}:
        mine = [job for job in wanted if (job.model, job.autograd) == (model, autograd)]
        ahead = _ahead(tenant, session, model, autograd, [job.id for job in mine])
        queue = _queue(tenant, session, model, autograd)
        for job in mine:
            held = {"newer": job.spec_version > SPEC_VERSION, "suspect": job.suspect}
            before = replace(ahead.get(job.id, Ahead()), **held)
            takes = estimated(queue, before, max(job.price_tokens - (job.scored_tokens or 0), 0))
            found[job.id] = replace(why(job.state, queue, before), estimate=takes)
    return found


def why(state: str, queue: Queue, ahead: Ahead) -> Waits:
    """Pure: the first reason that holds."""
    own, start = queue.tenant, begins(queue, ahead)
    if state == "paused":
        return Waits("paused", "The job is paused: it waits until it is resumed.")
    if not queue.served:
        text = "No worker with derivatives (the torch scorer)" if queue.autograd else "No worker"
        return Waits("no_worker", f"{text} serves the model: the job waits until one starts.")
    if ahead.newer:
        return Waits("newer_worker", "The job was asked for in the words of a newer release: it waits for its worker.")
    if own.daily_tokens is not None and queue.today >= own.daily_tokens:
        text = f"The {own.daily_tokens} scored tokens of the day are used: the job goes on after midnight UTC."
        return Waits("daily_tokens", text, start)
    if own.max_running is not None and queue.running >= own.max_running:
        return Waits("max_running", f"{queue.running} jobs of {own.max_running} allowed at one time run now.", start)
    if ahead.suspect:
        text = "A worker ended while it had the job: it is tried alone, and soon goes on as before."
        return Waits("suspect", text, start)
    return Waits("turn", f"The job waits for its turn: {ahead.jobs} of your jobs go before it.", start)


def begins(queue: Queue, ahead: Ahead) -> datetime | None:
    """When a job begins that has `ahead` before it, if all goes on as it was noted.

    Where its own jobs fill its places, as many must end
    as it takes to free one, each of their mean price.
    """
    now, own = queue.outlook, queue.tenant
    if not queue.served or now.places == 0:
        return None
    part = queue.part
    places = now.places * part
    seconds = (
        now.slice_seconds * max(0.5, 1 / places) if now.weights else 0.0
    )  # half a slice, or as many as others take
    room = max(1, int(places) if own.max_running is None else min(int(places), own.max_running))
    if ahead.jobs >= room:
        if now.rate * part < SLOWEST:
            return None
        seconds += ahead.tokens / ahead.jobs * (ahead.jobs - room + 1) / (now.rate * part)
    begin = queue.now
    if own.daily_tokens is not None and queue.today >= own.daily_tokens:
        begin = queue.now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return begin + timedelta(seconds=min(seconds, 1e9))


def estimated(queue: Queue, ahead: Ahead, left: int) -> Estimate | None:
    """When a job has ended that has `left` scored tokens to go and `ahead` before it, as far as prices tell.

    It goes no faster than one worker does and not before it begins, and it does not end before the tenant's part of all
    workers has scored what goes before it and the job itself.
    """
    rates = queue.rates
    if rates is None or min(rates.each, rates.whole * queue.part) < SLOWEST:
        return None
    own = rates.whole * queue.part
    begin = begins(queue, ahead)
    wait = 0.0 if begin is None else (begin - queue.now).total_seconds()
    seconds = max(wait + left / min(rates.each, own), (ahead.tokens + left) / own)
    return Estimate(min(seconds, 1e9), rates.measured)


def _queue(tenant: str, session: Session, model: str, autograd: bool) -> Queue:
    live = select(func.count()).select_from(Lease)
    oldest = _oldest(tenant, session, model)
    now = outlook.read(session, model)
    return Queue(
        outlook=now,
        served=workers.serving(session, model, autograd=autograd),
        tenant=session.get_one(Tenant, tenant),
        running=session.scalar(live.where(Lease.tenant_id == tenant, Lease.expires_at > func.clock_timestamp())) or 0,
        today=usage.today(session, tenant),
        now=(session.scalar(select(func.clock_timestamp())) or datetime.now(UTC)).astimezone(UTC),
        counted=oldest is not None and now.noted_at is not None and oldest < now.noted_at,
        rates=workers.rates(session, model, autograd),
        autograd=autograd,
    )


def _validating(tenant: str, session: Session, ids: list[str]) -> dict[str, Waits]:
    if not ids:
        return {}
    rows = select(Validation.job_id, Validation.rows).where(Validation.tenant_id == tenant, Validation.job_id.in_(ids))
    text = "The files are being validated: the job is queued, with its price, once their tokens are counted."
    return {job_id: Waits("validating", text, validated_rows=count) for job_id, count in session.execute(rows)}


def _ahead(tenant: str, session: Session, model: str, autograd: bool, ids: list[str]) -> dict[str, Ahead]:
    """What goes before each of the jobs `ids`, at the full price of each: an index holds it, what is paid it cannot."""
    order: dict[str, Any] = {"order_by": (Job.priority.desc(), Job.created_at, Job.id), "rows": (None, -1)}
    tokens = func.coalesce(func.sum(Job.price_tokens).over(**order), 0).label("tokens")
    queue = (
        select(Job.id, func.count().over(**order).label("jobs"), tokens)
        .where(Job.tenant_id == tenant, Job.model == model, Job.autograd == autograd)
        .where(Job.state.in_(("queued", "running")))
        .subquery()
    )
    found = session.execute(select(queue).where(queue.c.id.in_(ids)))
    return {job_id: Ahead(jobs, int(price)) for job_id, jobs, price in found}


def _oldest(tenant: str, session: Session, model: str) -> datetime | None:
    mine = select(Job.created_at).where(Job.tenant_id == tenant, Job.model == model)
    return session.scalar(mine.where(Job.state.in_(("queued", "running"))).order_by(Job.created_at).limit(1))


def warn_if_unserved(session: Session, job: Job) -> None:
    if not workers.serving(session, job.model, autograd=job.autograd):
        what = "No worker with derivatives" if job.autograd else "No worker"
        events.write(session, job, f"{what} serves {job.model}: the job waits until one starts", "warn")
