"""Jobs, the leases on them and what their tenants read of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, of_tenant, one_of

JOB_STATES = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")
WAITING, UNFINISHED = text("state IN ('queued', 'running')"), text("finished_at IS NULL")
METADATA: ColumnElement[Any] = literal_column("(request -> 'metadata')", JSONB)  # as its index spells it
PATHS = {"metadata": "jsonb_path_ops"}
HELD_OUT = text("finished_at IS NULL AND validation_file IS NOT NULL")
# A job whose rows have not decided it: it costs nothing, and nothing of it has run.
UNDECIDED = (
    "decided_at IS NOT NULL OR ("
    "state IN ('validating_files', 'failed', 'cancelled') AND price_tokens = 0 AND step = 0 AND started_at IS NULL)"
)


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)  # ftjob-…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    model: Mapped[str]
    spec: Mapped[dict[str, Any]]  # JobSpec; until `decided_at` what can be said of it before a row is read
    request: Mapped[dict[str, Any]]  # the accepted request as the tenant wrote it, `metadata` among it
    request_hash: Mapped[str]
    idempotency_key: Mapped[str | None]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="queued")
    wish: Mapped[str | None]  # what the tenant asked of a leased job: the worker obeys at its next step
    total_steps: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # committed steps = journal rows
    price_tokens: Mapped[int] = mapped_column(BigInteger)  # scored tokens the whole job costs, exact
    scored_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # paid so far
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # the last fencing token handed out
    # Unread and unwritten: the release before counts in it the claims since the last committed step.
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # Workers that fell silent while they held it (db/worker/deaths.py): worker, token, step, time, alone.
    deaths: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    suspect: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # claimed alone until it is cleared
    spec_version: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # what its worker must know at least
    rung_at: Mapped[datetime] = now()  # the last doorbell
    created_at: Mapped[datetime] = now()
    decided_at: Mapped[datetime | None] = now()  # spec, price and steps are what they stay; null while files are read
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    estimated_finish: Mapped[datetime | None]
    best_step: Mapped[int | None] = mapped_column(Integer)
    best_loss: Mapped[float | None] = mapped_column(Float)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # code, message, param
    stopped: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # early: reason, step
    restarts: Mapped[list[dict[str, int]]] = mapped_column(JSONB, server_default=text("'[]'"))  # at, origin; in order
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))  # among its tenant's: high goes first
    expected_start: Mapped[datetime | None]  # as it was foretold when the job was made: what the estimates' error is of
    parent_id: Mapped[str | None]  # the job whose adapter it goes on from: a trigger reads it from the spec
    autograd: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # its method needs derivatives
    traceparent: Mapped[str | None]  # W3C: where the request that made it stands in its trace; null before 0002
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("tenant_id", "idempotency_key"),
        of_tenant("training_file", "files", "fk_jobs_training_file"),
        of_tenant("validation_file", "files", "fk_jobs_validation_file"),
        of_tenant("parent_id", "jobs", "fk_jobs_parent"),
        Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index("ix_jobs_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        Index("ix_jobs_waiting", "model", "tenant_id", "created_at", postgresql_where=WAITING),
        Index(
            "ix_jobs_turn",
            *("model", "tenant_id", text("priority DESC"), "created_at", "id"),
            postgresql_include=["price_tokens", "autograd"],
            postgresql_where=WAITING,
        ),
        # No column of an index changes at a step, so that committing one touches no index.
        Index("ix_jobs_unfinished", "tenant_id", postgresql_include=["price_tokens"], postgresql_where=UNFINISHED),
        Index("ix_jobs_tenant_id_request_hash", "tenant_id", "request_hash"),
        Index("ix_jobs_training_file", "training_file", postgresql_where=UNFINISHED),
        Index("ix_jobs_validation_file", "validation_file", postgresql_where=HELD_OUT),
        Index("ix_jobs_finished_at", "finished_at", "id", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "ix_jobs_metadata",
            METADATA.label("metadata"),
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
        CheckConstraint(one_of("state", JOB_STATES), name="state"),
        CheckConstraint(one_of("wish", ("pause", "cancel")), name="wish"),
        CheckConstraint("wish IS NULL OR state = 'running'", name="only_a_running_job_is_wished"),
        CheckConstraint(f"({one_of('state', ENDED)}) = (finished_at IS NOT NULL)", name="ended_has_a_time"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_has_a_reason"),
        CheckConstraint("step >= 0 AND step <= total_steps", name="step"),
        CheckConstraint(
            "state <> 'succeeded' OR step = total_steps OR stopped IS NOT NULL", name="succeeded_is_whole_or_stopped"
        ),
        CheckConstraint("state IN ('succeeded') OR stopped IS NULL", name="stopped_is_succeeded"),
        CheckConstraint("scored_tokens >= 0 AND price_tokens >= 0", name="tokens"),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        CheckConstraint("(best_step IS NULL) = (best_loss IS NULL)", name="best"),
        CheckConstraint(UNDECIDED, name="undecided_has_no_price"),
        CheckConstraint("state <> 'validating_files' OR decided_at IS NULL", name="validating_is_undecided"),
    )


class Validation(Base):
    """A job whose files are being validated. Some process of the API counts their tokens until `expires_at`, renewed as
    it goes on, and proves by `holder` that it still may."""

    __tablename__ = "validations"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    model: Mapped[str]
    holder: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    rows: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # read so far
    tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # claims that did not end in order
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_validations_job"),
        CheckConstraint("(holder IS NULL) = (expires_at IS NULL)", name="held_for_a_time"),
        CheckConstraint("rows >= 0 AND tries >= 0", name="counts"),
    )


class Lease(Base):
    """A row is a lease in force or expired; releasing deletes it. The token is the job's `fence` at the claim."""

    __tablename__ = "leases"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    worker_id: Mapped[str] = mapped_column(ForeignKey("workers.id"))
    token: Mapped[int] = mapped_column(BigInteger)
    claimed_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime]
    alone: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # its worker holds no other
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_leases_job"),
        CheckConstraint("token > 0", name="token"),
        Index("ix_leases_expires_at", "expires_at"),
    )


class Event(Base):
    """`number` counts the events of its job from 1: a trigger gives it, so that every release's are numbered."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)  # of all tenants: never shown
    job_id: Mapped[str]
    tenant_id: Mapped[str]
    number: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    level: Mapped[str] = mapped_column(server_default="info")
    type: Mapped[str] = mapped_column(server_default="message")  # message or metrics, as OpenAI's
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_events_job"),
        Index("ix_events_job_id_id", "job_id", "id"),
        UniqueConstraint("job_id", "number"),
        CheckConstraint(one_of("level", ("info", "warn", "error")), name="level"),
        CheckConstraint(one_of("type", ("message", "metrics")), name="type"),
    )
