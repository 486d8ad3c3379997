"""What a run has measured, and the adapters that it comes to."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Float, Index, Integer, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, of_tenant, one_of


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
    accuracy: Mapped[float | None] = mapped_column(Float)  # null: not measured
    rows: Mapped[int] = mapped_column(Integer)
    tokens: Mapped[int] = mapped_column(BigInteger)
    token: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = now()
    # The standard error of its difference to step 0, whether that is more than noise, and at step 0 each row's sum.
    noise: Mapped[float | None] = mapped_column(Float)
    diverged: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    terms: Mapped[list[float] | None] = mapped_column(ARRAY(Float(53)), deferred=True)
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_evaluations_job"),
        Index("ix_evaluations_tenant_id_created_at", "tenant_id", "created_at"),
        CheckConstraint("step >= 0 AND rows > 0", name="whole"),
    )


RESULT_KINDS = ("metrics", "adapter", "receipt")  # in the order in which a job's result files are listed


class Result(Base):
    """A result file of a job that has ended."""

    __tablename__ = "results"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    file_id: Mapped[str]
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_results_job"),
        of_tenant("file_id", "files", "fk_results_file"),
        CheckConstraint(one_of("kind", RESULT_KINDS), name="kind"),
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
    deleted_at: Mapped[datetime | None]  # a tombstone: nothing of it can be fetched, workers remove its folder
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_adapters_job"),
        of_tenant("file_id", "files", "fk_adapters_file"),
        Index("ix_adapters_tenant_id_created_at", "tenant_id", "created_at"),
        Index("ix_adapters_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        CheckConstraint("step >= 0 AND length(sha256) = 64", name="whole"),
    )
