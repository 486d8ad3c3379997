"""The queue, its workers and its tenants as numbers for gauges, read in one short transaction. Names no tenant."""

import time
from dataclasses import dataclass, field

from sqlalchemy import Float, cast, func, select, text, true, type_coerce
from sqlalchemy.orm import Session

from db.tables import Job, Share, Tenant, Worker
from db.usage import recent_tokens

LIVE = ("validating_files", "queued", "running", "paused")
SERVING = ("starting", "ready", "out", "draining")
FRESH, FORGOTTEN = "30 seconds", "1 day"  # a worker silent for longer is stale; one silent for a day is nobody's news
NEAR = 0.9  # of a token quota
PATIENCE = "2s"  # a scrape must not wait for a database in trouble


@dataclass
class Overview:
    """By model: live jobs and fresh workers by state, and what the workers of `models` would show where none exist."""

    models: list[str]
    jobs: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest_queued: dict[str, float] = field(default_factory=dict)  # seconds; of the jobs that never began
    backlog_tokens: dict[str, int] = field(default_factory=dict)
    workers: dict[tuple[str, str], int] = field(default_factory=dict)
    stale_workers: dict[str, int] = field(default_factory=dict)
    active_tenants: dict[str, int] = field(default_factory=dict)
    fairness: dict[str, float] = field(default_factory=dict)  # Jain's index, 1 where nobody is worse off
    near_quota: int = 0
    database_bytes: int = 0
    clock_skew: float = 0.0  # seconds, the database's clock less this process's

    def __post_init__(self) -> None:
        self.jobs = {(model, state): 0 for model in self.models for state in LIVE}
        self.workers = {(model, state): 0 for model in self.models for state in SERVING}
        self.oldest_queued = dict.fromkeys(self.models, 0.0)
        self.backlog_tokens = dict.fromkeys(self.models, 0)
        self.stale_workers = dict.fromkeys(self.models, 0)
        self.active_tenants = dict.fromkeys(self.models, 0)
        self.fairness = dict.fromkeys(self.models, 1.0)


def overview(session: Session, models: list[str]) -> Overview:
    """Everything, as the database has it now; models beyond `models` appear where rows name them."""
    session.execute(text(f"SET LOCAL statement_timeout = '{PATIENCE}'"))
    found = Overview(models)
    _jobs(session, found)
    _workers(session, found)
    _tenants(session, found)
    found.database_bytes = session.scalar(select(func.pg_database_size(func.current_database()))) or 0
    before = time.time()
    clock = session.scalar(select(type_coerce(func.extract("epoch", func.clock_timestamp()), Float)))
    found.clock_skew = float(clock or 0.0) - (before + time.time()) / 2
    return found


def jain(shares: list[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 where all have the same, 1/n where one has everything (Jain, Chiu and Hawe, 1984,
    equation 1). 1 for fewer than two, and where nobody has anything."""
    squares = sum(x * x for x in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if len(shares) > 1 and squares > 0 else 1.0


def _jobs(session: Session, found: Overview) -> None:
    # Asked for as unfinished, which has an index. A job between two slices is queued too, and does not wait to begin.
    first = func.min(Job.created_at).filter(Job.started_at.is_(None))
    waited = func.extract("epoch", func.clock_timestamp() - first)
    left = func.sum(func.greatest(Job.price_tokens - Job.scored_tokens, 0))
    wanted = select(Job.model, Job.state, func.count(), waited, left)
    for model, state, count, seconds, tokens in session.execute(
        wanted.where(Job.finished_at.is_(None)).group_by(Job.model, Job.state)
    ):
        found.jobs[model, state] = count
        if state == "queued" and seconds is not None:
            found.oldest_queued[model] = float(seconds)
        if state != "paused":
            found.backlog_tokens[model] = found.backlog_tokens.get(model, 0) + int(tokens)


def _workers(session: Session, found: Overview) -> None:
    age = func.clock_timestamp() - Worker.heartbeat_at
    fresh = age < text(f"interval '{FRESH}'")
    wanted = select(Worker.model, Worker.state, fresh.label("fresh"), func.count())
    known = Worker.state.in_(SERVING) & (age < text(f"interval '{FORGOTTEN}'"))
    for model, state, alive, count in session.execute(wanted.where(known).group_by(Worker.model, Worker.state, fresh)):
        if alive:
            found.workers[model, state] = count
        else:
            found.stale_workers[model] = found.stale_workers.get(model, 0) + count


def _tenants(session: Session, found: Overview) -> None:
    live = Job.state.in_(("queued", "running")) & (Job.model == Share.model) & (Job.tenant_id == Share.tenant_id)
    waits = select(Job.id).where(live).limit(1).correlate(Share).lateral("waits")
    active: dict[str, dict[str, float]] = {}
    wanted = select(Share.model, Share.tenant_id, Tenant.weight).join(Tenant, Tenant.id == Share.tenant_id)
    for model, tenant, weight in session.execute(wanted.join(waits, true())):
        active.setdefault(model, {})[tenant] = weight
    used = recent_tokens(session)
    for model, weights in active.items():
        found.active_tenants[model] = len(weights)
        found.fairness[model] = jain([used.get(tenant, 0) / weight for tenant, weight in weights.items()])
    promised = (
        select(func.coalesce(func.sum(Job.price_tokens), 0))
        .where(Job.tenant_id == Tenant.id, Job.finished_at.is_(None))
        .scalar_subquery()
    )
    taken = cast(Tenant.spent_tokens + promised, Float)
    near = select(func.count()).where(Tenant.token_quota > 0, taken >= NEAR * Tenant.token_quota)
    found.near_quota = session.scalar(near.select_from(Tenant)) or 0
