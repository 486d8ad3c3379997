"""Rows as OpenAI's fine-tuning objects. Knows no request."""

import math
import time
from typing import Any, Literal

from pydantic import BaseModel

from api.files import epoch
from api.pagination import Entry
from db.ids import adapter_name
from db.tables import Adapter, Evaluation, Event, Job
from db.tenant.waiting import Waits

HYPER = ("n_epochs", "batch_size", "learning_rate_multiplier")


class JobError(BaseModel):
    code: str
    message: str
    param: str | None = None


class JobObject(Entry):
    """OpenAI's FineTuningJob. `onward` holds the whole spec, the price and the progress in scored tokens and steps, and
    the text of the tokens that switch the adapter on (None where it acts on all). `onward.waiting` says why a job waits
    and when it may go on (None where it runs or has ended)."""

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
    """A step that was evaluated. Any step can be rebuilt from the journal: a checkpoint stores nothing more."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float | None]
    step_number: int
    onward: dict[str, Any]


def job(row: Job, adapter: Adapter | None, waits: Waits | None) -> JobObject:
    """`fine_tuned_model` is set once the job succeeded; a failed job's best checkpoint is in `onward.adapter`. Of a
    deleted adapter only `onward.adapter` tells, with `deleted_at`: what it was, the journal's receipt."""
    hyper = hyperparameters(row)
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
        result_files=[adapter.file_id] if adapter and not adapter.deleted_at else [],
        seed=row.spec["seed"],
        status=row.state,
        trained_tokens=row.scored_tokens if row.finished_at else None,
        training_file=row.training_file,
        validation_file=row.validation_file,
        suffix=row.spec.get("suffix"),
        onward={
            "price_tokens": row.price_tokens,
            "price": row.request.get("price"),
            "scored_tokens": row.scored_tokens,
            "step": row.step,
            "total_steps": row.total_steps,
            **watched(row),
            "wish": row.wish,
            "priority": row.priority,
            "waiting": why(waits),
            "adapter": about(adapter),
            "invocation": row.request.get("invocation"),
            "spec": row.spec,
        },
    )


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


def about(adapter: Adapter | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    said = {"id": adapter.id, "name": adapter.name, "step": adapter.step, "sha256": adapter.sha256}
    return said | ({"deleted_at": epoch(adapter.deleted_at)} if adapter.deleted_at else {})


def why(waits: Waits | None) -> dict[str, Any] | None:
    if waits is None:
        return None
    start = epoch(waits.estimated_start) if waits.estimated_start else None
    return {"reason": waits.reason, "message": waits.message, "estimated_start": start}


def hyperparameters(row: Job) -> dict[str, Any]:
    """OpenAI's three as the tenant sent them, "auto" where it left them to us, and the batch size in any case."""
    method = (row.request.get("method") or {}).get("supervised") or {}
    sent = (row.request.get("hyperparameters") or {}) | (method.get("hyperparameters") or {})
    values = {name: sent.get(name) if sent.get(name) is not None else "auto" for name in HYPER}
    return values | {"batch_size": row.spec["batch_size"]}


def event(row: Event) -> EventObject:
    return EventObject(
        id=f"ftevent-{row.job_id.partition('-')[2]}-{row.number}",
        created_at=epoch(row.created_at),
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
    )


def checkpoint(row: Evaluation, of: Job, validation_rows: int | None) -> CheckpointObject:
    """`full_valid_…` are OpenAI's for the whole validation file: set where all its rows were
    used, which cannot be told once the file is deleted (None)."""
    loss = row.loss if math.isfinite(row.loss) else None  # JSON has no NaN
    name = adapter_name(of.model, of.tenant_id, of.spec.get("suffix"), of.id)
    metrics: dict[str, float | None] = {"step": row.step, "valid_loss": loss, "valid_mean_token_accuracy": row.accuracy}
    if row.rows == validation_rows:
        metrics |= {"full_valid_loss": loss, "full_valid_mean_token_accuracy": row.accuracy}
    return CheckpointObject(
        id=f"ftckpt-{row.job_id.partition('-')[2]}-{row.step}",
        created_at=epoch(row.created_at),
        fine_tuned_model_checkpoint=f"{name}:ckpt-step-{row.step}",
        fine_tuning_job_id=row.job_id,
        metrics=metrics,
        step_number=row.step,
        onward={
            "rows": row.rows,
            "scored_tokens": row.tokens,
            "noise": row.noise if row.noise is not None and math.isfinite(row.noise) else None,
            "diverged": row.diverged,
        },
    )
