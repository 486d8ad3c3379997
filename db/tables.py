"""Rows, states and constraints. What must not be is refused here, whoever asks."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, of_tenant, one_of

JOB_STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")
WAITING, UNFINISHED = text("state IN ('queued', 'running')"), text("finished_at IS NULL")


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)  # ten_…
    name: Mapped[str] = mapped_column(unique=True)
    tenant_class: Mapped[str] = mapped_column(server_default="standard")  # the only tenant label metrics may carry
    weight: Mapped[float] = mapped_column(Float, server_default=text("1"))  # share of scored tokens
    token_quota: Mapped[int | None] = mapped_column(BigInteger)  # scored tokens in all; null is unlimited
    spent_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # scored by jobs that have ended
    max_jobs: Mapped[int] = mapped_column(Integer, server_default=text("1000"))  # not ended at one time
    created_at: Mapped[datetime] = now()
    __table_args__ = (CheckConstraint("weight > 0", name="weight"), CheckConstraint("max_jobs >= 0", name="max_jobs"))


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)  # key_…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    hint: Mapped[str]  # the key's first characters, to tell keys apart
    hash: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of the whole key; the key itself is random, 256 bits
    created_at: Mapped[datetime] = now()
    revoked_at: Mapped[datetime | None]


class File(Base):
    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)  # file-…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    purpose: Mapped[str]
    filename: Mapped[str]
    format: Mapped[str | None]  # chat, completion, choice; null for results
    bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    sha256: Mapped[str]
    created_at: Mapped[datetime] = now()
    deleted_at: Mapped[datetime | None]  # hidden from the tenant; chunks go once no job needs them
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        Index("ix_files_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        CheckConstraint(one_of("purpose", ("fine-tune", "fine-tune-results")), name="purpose"),
        CheckConstraint(one_of("format", ("chat", "completion", "choice")), name="format"),
        CheckConstraint("(purpose = 'fine-tune') = (format IS NOT NULL)", name="examples_have_a_format"),
        CheckConstraint("bytes > 0 AND rows >= 0", name="size"),
    )


class FileChunk(Base):
    __tablename__ = "file_chunks"
    file_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    data: Mapped[bytes]
    __table_args__ = (
        # Deferred: chunks are written as they come, the file's row when its size and hash are known.
        ForeignKeyConstraint(
            ["tenant_id", "file_id"],
            ["files.tenant_id", "files.id"],
            name="fk_file_chunks_owner",
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
    )


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)  # ftjob-…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    model: Mapped[str]
    spec: Mapped[dict[str, Any]]  # JobSpec
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
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # claims since the last committed step
    rung_at: Mapped[datetime] = now()  # the last doorbell
    created_at: Mapped[datetime] = now()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    estimated_finish: Mapped[datetime | None]
    best_step: Mapped[int | None] = mapped_column(Integer)
    best_loss: Mapped[float | None] = mapped_column(Float)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # code, message, param
    traceparent: Mapped[str | None]  # W3C: where the request that made it stands in its trace; null before 0002
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("tenant_id", "idempotency_key"),
        of_tenant("training_file", "files", "fk_jobs_training_file"),
        of_tenant("validation_file", "files", "fk_jobs_validation_file"),
        Index("ix_jobs_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        Index("ix_jobs_waiting", "model", "tenant_id", "created_at", postgresql_where=WAITING),
        # No column of an index changes at a step, so that committing one touches no index.
        Index("ix_jobs_unfinished", "tenant_id", postgresql_include=["price_tokens"], postgresql_where=UNFINISHED),
        Index("ix_jobs_tenant_id_request_hash", "tenant_id", "request_hash"),
        CheckConstraint(one_of("state", JOB_STATES), name="state"),
        CheckConstraint(one_of("wish", ("pause", "cancel")), name="wish"),
        CheckConstraint("wish IS NULL OR state = 'running'", name="only_a_running_job_is_wished"),
        CheckConstraint(f"({one_of('state', ENDED)}) = (finished_at IS NOT NULL)", name="ended_has_a_time"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_has_a_reason"),
        CheckConstraint("step >= 0 AND step <= total_steps", name="step"),
        CheckConstraint("state <> 'succeeded' OR step = total_steps", name="succeeded_is_whole"),
        CheckConstraint("scored_tokens >= 0 AND price_tokens >= 0", name="tokens"),
        CheckConstraint("(best_step IS NULL) = (best_loss IS NULL)", name="best"),
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
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_leases_job"),
        CheckConstraint("token > 0", name="token"),
        Index("ix_leases_expires_at", "expires_at"),
    )


class JournalStep(Base):
    """The committed losses of one step, in the order the probes were asked: with the spec, all a replay needs."""

    __tablename__ = "journal"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    losses: Mapped[list[float]] = mapped_column(ARRAY(Float(53)))
    tokens: Mapped[int] = mapped_column(BigInteger)  # scored tokens of the step, evaluation not counted
    token: Mapped[int] = mapped_column(BigInteger)  # the fencing token it was written under
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_journal_job"),
        Index("ix_journal_tenant_id_created_at", "tenant_id", "created_at"),  # what a tenant used of late
        CheckConstraint("step >= 0 AND tokens >= 0 AND cardinality(losses) > 0", name="whole"),
    )


class Evaluation(Base):
    """Held-out loss and accuracy of the adapter after `step` steps. Each is a checkpoint: any step can be restored."""

    __tablename__ = "evaluations"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    loss: Mapped[float] = mapped_column(Float)
    accuracy: Mapped[float] = mapped_column(Float)
    rows: Mapped[int] = mapped_column(Integer)
    tokens: Mapped[int] = mapped_column(BigInteger)
    token: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_evaluations_job"),
        Index("ix_evaluations_tenant_id_created_at", "tenant_id", "created_at"),
        CheckConstraint("step >= 0 AND rows > 0", name="whole"),
    )


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    job_id: Mapped[str]
    tenant_id: Mapped[str]
    level: Mapped[str] = mapped_column(server_default="info")
    type: Mapped[str] = mapped_column(server_default="message")  # message or metrics, as OpenAI's
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_events_job"),
        Index("ix_events_job_id_id", "job_id", "id"),
        CheckConstraint(one_of("level", ("info", "warn", "error")), name="level"),
        CheckConstraint(one_of("type", ("message", "metrics")), name="type"),
    )


class Adapter(Base):
    """A published adapter. `sha256` is of adapter_model.safetensors; `file_id` holds the PEFT directory as a tar."""

    __tablename__ = "adapters"
    id: Mapped[str] = mapped_column(primary_key=True)  # adpt-…
    tenant_id: Mapped[str]
    job_id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)  # ft:<model>:<tenant>:<suffix>:<id>
    step: Mapped[int] = mapped_column(Integer)  # steps replayed to build it
    sha256: Mapped[str]
    path: Mapped[str]  # the directory on the worker's disk: a cache
    file_id: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_adapters_job"),
        of_tenant("file_id", "files", "fk_adapters_file"),
        Index("ix_adapters_tenant_id_created_at", "tenant_id", "created_at"),
        CheckConstraint("step >= 0 AND length(sha256) = 64", name="whole"),
    )


class Worker(Base):
    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)  # wrk_…
    model: Mapped[str] = mapped_column(index=True)
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default="starting")
    capacity: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    about: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # versions, dtype, self-check
    started_at: Mapped[datetime] = now()
    heartbeat_at: Mapped[datetime] = now()
    __table_args__ = (CheckConstraint(one_of("state", ("starting", "ready", "draining", "gone")), name="state"),)
