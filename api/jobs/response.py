"""Rows as OpenAI's fine-tuning objects. Knows no request."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from api.files import epoch
from api.jobs import figures
from api.pagination import Entry
from db.contract.journal_row import replay_of
from db.contract.spec import JobSpec, stored
from db.ids import adapter_name, checkpoint_name, live_name, step_file
from db.tables import Adapter, Evaluation, Event, Job
from db.tenant.waiting import Waits


class JobError(BaseModel):
    code: str
    message: str
    param: str | None = None


class JobObject(Entry):
    """OpenAI's FineTuningJob. `onward` holds the whole spec, the price and the progress in scored tokens and steps, and
    the text of the tokens that switch the adapter on (None where it acts on all). `onward.waiting` says why a job waits
    and when it may go on (None where it runs or has ended), `onward.estimate` in how many seconds it has ended and
    whether live workers have measured that; `onward.chosen` which method was taken where the request named none, and
    why; `onward.held_out` how many rows of its training file are measured on, and `onward.repeated_rows` how many say
    what an earlier one says; `onward.replay` what its steps are rebuilt from: the `journal`, or `snapshots`, points
    kept whole of a run that follows from gradients; `onward.drift` its adapter's mean KL to the base, nats a token;
    `onward.live_model` by which name it answers while it trains. While the files are being validated, and of a job that
    ended so, there is no spec and no price; `onward.validated_rows` says how far it is."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    error: JobError | None
    fine_tuned_model: str | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    metadata: dict[str, str] | None
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    integrations: tuple[Any, ...] = ()
    suffix: str | None
    onward: dict[str, Any]


class EventObject(Entry):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any] | None


class CheckpointObject(Entry):
    """A step that was evaluated. Any step can be rebuilt from the journal, and a checkpoint stores nothing more; but of
    jobs whose `replay` is `snapshots` only the newest point and the best are kept, until they end."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float | None]
    step_number: int
    onward: dict[str, Any]


@dataclass(frozen=True)
class Beside:
    """What a job's answer takes from other rows: what it has published and its drift, the ids of its result files in
    their order, and the rows of its training file."""

    adapter: Adapter | None = None
    results: Sequence[str] = ()
    rows: int | None = None
    drift: float | None = None


def job(row: Job, beside: Beside, waits: Waits | None) -> JobObject:
    """`fine_tuned_model` is set once the job succeeded; a failed job's best checkpoint is in `onward.adapter`. Of a
    deleted adapter only `onward.adapter` tells, with `deleted_at`: what it was, the journal's receipt."""
    spec, adapter = contract(row), beside.adapter
    hyper = figures.hyperparameters(row.request, spec, beside.rows)
    done = row.state == "succeeded"
    return JobObject(
        id=row.id,
        created_at=epoch(row.created_at),
        finished_at=epoch(row.finished_at) if row.finished_at else None,
        estimated_finish=finish(row),
        error=JobError(**row.error) if row.error else None,
        fine_tuned_model=adapter.name if adapter and done and not adapter.deleted_at else None,
        hyperparameters=hyper,
        method={"type": "supervised", "supervised": {"hyperparameters": hyper}},
        metadata=row.request.get("metadata"),
        model=row.model,
        organization_id=row.tenant_id,
        result_files=list(beside.results),
        seed=(row.spec or row.request).get("seed") or 0,
        status=row.state,
        trained_tokens=row.scored_tokens if row.finished_at else None,
        training_file=row.training_file,
        validation_file=row.validation_file,
        suffix=(row.spec or row.request).get("suffix"),
        onward=ours(row, beside, waits, spec),
    )


def ours(row: Job, beside: Beside, waits: Waits | None, spec: JobSpec | None) -> dict[str, Any]:
    """What OpenAI's object has no place for."""
    decided = row.decided_at is not None
    return {
        "price_tokens": row.price_tokens if decided else None,
        "price": row.request.get("price"),
        "chosen": row.request.get("chosen"),
        "scored_tokens": row.scored_tokens,
        "step": row.step,
        "total_steps": row.total_steps if decided else None,
        **watched(row),
        "wish": row.wish,
        "priority": row.priority,
        **foretold(waits),
        "validated_rows": waits.validated_rows if waits else None,
        "adapter": about(beside.adapter, row),
        "drift": beside.drift,
        "live_model": live(row),
        "replay": replay_of(row.spec),
        "epochs": figures.epochs(spec, beside.rows) if spec else None,
        **of_rows(row),
        "spec": row.spec if decided else None,
    }


def watched(row: Job) -> dict[str, Any]:
    """What its evaluations came to, why it ended early, and where it went back."""
    return {
        "best_step": row.best_step,
        "best_loss": row.best_loss,
        "stopped": row.stopped,
        "restarts": row.restarts,
    }


def finish(row: Job) -> int | None:
    """When it is foretold to be done: as of its last step, between slices as in them, and never in the past."""
    if row.estimated_finish is None or row.state not in ("queued", "running"):
        return None
    return max(epoch(row.estimated_finish), int(time.time()))


def about(adapter: Adapter | None, of: Job) -> dict[str, Any] | None:
    if adapter is None:
        return None
    said = {"id": adapter.id, "name": adapter.name, "step": adapter.step, "sha256": adapter.sha256}
    said |= {"replay": replay_of(of.spec)}
    return said | ({"deleted_at": epoch(adapter.deleted_at)} if adapter.deleted_at else {"file": adapter.file_id})


def live(row: Job) -> str | None:
    """The name by which it can be asked while it trains."""
    if row.state != "running" or row.spec is None:
        return None
    return live_name(adapter_name(row.model, row.tenant_id, row.spec.get("suffix"), row.id))


def why(waits: Waits | None) -> dict[str, Any] | None:
    if waits is None:
        return None
    start = epoch(waits.estimated_start) if waits.estimated_start else None
    return {"reason": waits.reason, "message": waits.message, "estimated_start": start}


def contract(row: Job) -> JobSpec | None:
    """The row's spec; None where it has none yet, and where a later release has written it."""
    try:
        return stored(row.spec) if row.decided_at is not None else None
    except (ValueError, LookupError, TypeError, AttributeError):  # pydantic's is a ValueError
        return None


def foretold(waits: Waits | None) -> dict[str, Any]:
    return {"waiting": why(waits), "estimate": estimate(waits)}


def estimate(waits: Waits | None) -> dict[str, Any] | None:
    """Seconds until a job that waits has ended; None where nothing is known, and once it runs (`estimated_finish`)."""
    if waits is None or waits.estimate is None:
        return None
    return {"seconds": round(waits.estimate.seconds, 1), "measured": waits.estimate.measured}


def of_rows(row: Job) -> dict[str, Any]:
    """The invocation that the rows have; how many of the training file's are measured on and not trained on (None where
    none are), and how many repeat another."""
    count = row.spec.get("held_out") if row.decided_at is not None else None
    return {
        "invocation": row.request.get("invocation"),
        "held_out": {"rows": count, "of": row.request.get("rows")} if count else None,
        "repeated_rows": row.request.get("repeated_rows"),
    }


def event(row: Event) -> EventObject:
    return EventObject(
        id=f"ftevent-{row.job_id.partition('-')[2]}-{row.number}",
        created_at=epoch(row.created_at),
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
    )


def checkpoint(row: Evaluation, of: Job, validation_rows: int | None, kept: set[int] | None = None) -> CheckpointObject:
    """`full_valid_…` are OpenAI's for the whole validation file: set where all its rows were
    used, which cannot be told once the file is deleted (None). `onward.file` is None where only `kept` steps can be had
    and this is none of them."""
    loss = row.loss if math.isfinite(row.loss) else None  # JSON has no NaN
    name = adapter_name(of.model, of.tenant_id, of.spec.get("suffix"), of.id)
    metrics: dict[str, float | None] = {"step": row.step, "valid_loss": loss, "valid_mean_token_accuracy": row.accuracy}
    if row.rows == validation_rows:
        metrics |= {"full_valid_loss": loss, "full_valid_mean_token_accuracy": row.accuracy}
    return CheckpointObject(
        id=f"ftckpt-{row.job_id.partition('-')[2]}-{row.step}",
        created_at=epoch(row.created_at),
        fine_tuned_model_checkpoint=checkpoint_name(name, row.step),
        fine_tuning_job_id=row.job_id,
        metrics=metrics,
        step_number=row.step,
        onward={
            "rows": row.rows,
            "scored_tokens": row.tokens,
            "file": step_file(row.job_id, row.step) if kept is None or row.step in kept else None,
            "noise": row.noise if row.noise is not None and math.isfinite(row.noise) else None,
            "diverged": row.diverged,
        },
    )
