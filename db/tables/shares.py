"""What tenants have used and whose turn it is: virtual times, usage by the minute and by the day. Names no job."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, Date, Float, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base


class Share(Base):
    """A tenant's virtual time at a model: scored tokens over weight, from where the model's clock stood when it came.

    There is a row for every tenant with a queued or running job (a trigger on jobs sees to it); one without such a
    job may be deleted once the clock has passed it, as it then would begin at the clock anew.
    """

    __tablename__ = "shares"
    model: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    finish: Mapped[float] = mapped_column(Float)
    since: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    __table_args__ = (Index("ix_shares_turn", "model", "finish", "since", "tenant_id"),)


class Clock(Base):
    """A model's virtual time: where the tenant stood that was served last. It only goes forward.

    Beside it what a wait is foretold from, as the last sweep found it.
    """

    __tablename__ = "clocks"
    model: Mapped[str] = mapped_column(primary_key=True)
    virtual: Mapped[float] = mapped_column(Float, server_default=text("0"))
    rate: Mapped[float] = mapped_column(Float, server_default=text("0"))  # scored tokens a second, of all tenants
    weights: Mapped[float] = mapped_column(
        Float, server_default=text("0")
    )  # sum, of tenants with jobs that wait or run
    places: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # runs that step at one time
    slice_seconds: Mapped[float] = mapped_column(Float, server_default=text("0"))
    noted_at: Mapped[datetime | None]
    __table_args__ = (CheckConstraint("rate >= 0 AND weights >= 0 AND places >= 0", name="outlook"),)


class Usage(Base):
    """Scored tokens that a tenant committed in the minute that begins at `minute`."""

    __tablename__ = "usage"
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (CheckConstraint("tokens >= 0", name="tokens"),)


class Daily(Base):
    """Scored tokens that a tenant committed on a day, UTC."""

    __tablename__ = "usage_days"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (CheckConstraint("tokens >= 0", name="tokens"),)


class Pruned(Base):
    """How far the pruning of `kind` has come: nothing is left of it of jobs that ended before (finished_at, job_id)."""

    __tablename__ = "pruned"
    kind: Mapped[str] = mapped_column(primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[str]
