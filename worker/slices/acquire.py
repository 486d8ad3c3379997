"""From a waiting job to a leased run: claim, and continue, replay or start it. Knows leases and files, no engine."""

import time
from datetime import UTC, datetime

import structlog

from db.contract.rows.jsonl import BadRow
from db.telemetry import traces
from db.worker import journal, leases
from db.worker.candidates import Waiting
from db.worker.leases import Claim
from worker import metrics
from worker.adapters import snapshots
from worker.runs import data
from worker.runs.data import Dataset
from worker.runs.replay import replay
from worker.runs.run import start
from worker.slices.context import Context
from worker.slices.journal_writer import JournalWriter, Pace
from worker.slices.persist import persist
from worker.slices.resident import LeasedRun, Resident

log = structlog.get_logger("worker.slices.acquire")


def acquire(context: Context, waiting: Waiting) -> LeasedRun | None:
    """The run of `waiting` under a lease of this worker, ready for its next step.

    None where another worker was faster, the job was found poisonous, or its rows cannot be read any more (it has
    failed then). Raises LeaseLost, and OperationalError where the database is away.
    """
    settings, before = context.settings, time.monotonic()
    with context.transaction(waiting.tenant_id) as session:
        claim = leases.claim(session, waiting.job_id, context.worker_id, settings.lease_seconds, settings.max_attempts)
    if claim is None:
        return None
    context.heartbeat.hold(claim, before)
    if claim.took_over:
        metrics.lease_expiries.labels(context.model).inc()
    if claim.token == 1:
        wait = (datetime.now(UTC) - claim.created_at).total_seconds()
        metrics.queue_wait_seconds.labels(context.model, waiting.tenant_class).observe(max(0.0, wait))
        if claim.expected_start is not None:
            foretold = (claim.expected_start - claim.created_at).total_seconds()
            metrics.wait_estimate_ratio.labels(context.model).observe(max(1.0, foretold) / max(1.0, wait))
    resident = context.residents.pop(claim.job_id, None)
    if resident is None or resident.run.step != claim.step:
        try:
            with traces.span("load", claim.traceparent, job=claim.job_id, step=claim.step):
                resident = _load(context, claim)
        except BadRow as error:
            with traces.within(claim.traceparent):
                refuse(context, claim, "unreadable_rows", str(error))
            return None
    writer = JournalWriter(claim, context.model, context.factory, resident.pace)
    return LeasedRun(resident, writer, waiting.tenant_class)


def refuse(context: Context, claim: Claim, code: str, message: str) -> None:
    """End a claimed job that cannot be run."""

    def write() -> None:
        with context.transaction(claim.tenant_id) as session:
            journal.fail(session, claim, code, message)

    persist(write, lambda: context.heartbeat.until(claim.job_id))
    context.heartbeat.drop(claim.job_id)
    metrics.jobs_ended.labels(context.model, code).inc()
    log.warning("refused", job=claim.job_id, code=code, reason=message)


def _load(context: Context, claim: Claim) -> Resident:
    """The run as the journal has it: from the newest snapshot that lies on the journal, and replay of the rest."""
    spec, started = claim.spec, time.perf_counter()
    with context.transaction(claim.tenant_id) as session:
        train = leases.read_file(session, claim, spec.training_file)
        valid = leases.read_file(session, claim, spec.validation_file) if spec.validation_file else b""
        losses = journal.read(session, claim)[: claim.step]
    invocation = spec.adapter.invocation
    rows = Dataset(
        train=data.FileExamples(context.base, train, invocation),
        valid=data.examples(context.base, valid, spec.eval_rows, invocation) if valid and spec.eval_rows else (),
    )
    run = start(claim.job_id, spec, context.base, rows, claim.tenant_id)
    snapshot = context.snapshots.newest(claim.job_id, spec, losses, type(run.state)) if losses else None
    best = None if claim.best_step is None or claim.best_loss is None else (claim.best_step, claim.best_loss)
    run = run.at(replay(run.method, losses, snapshot), best)
    seconds = time.perf_counter() - started
    if losses:
        metrics.replay_seconds.labels(context.model).observe(seconds)
    log.info("replayed" if losses else "started", job=claim.job_id, step=run.step, seconds=round(seconds, 3))
    return Resident(run, spec, Pace(run.step), snapshots.Prefix(spec, losses), snapshot=run.step)
