"""What tenants were served: tokens by request and by day. Names no prompt and no answer."""

from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, Date, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now

WHOLE = "prompt >= 0 AND cached >= 0 AND completion >= 0"


class Served(Base):
    """Tokens of one request, under the id that its answer carries: written twice, they count once."""

    __tablename__ = "served"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    request: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]  # the base model
    at: Mapped[datetime] = now()
    prompt: Mapped[int] = mapped_column(BigInteger)
    cached: Mapped[int] = mapped_column(BigInteger)  # of the prompt's, those that were not computed anew
    completion: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (Index("ix_served_at", "at"), CheckConstraint(WHOLE, name="whole"))


class ServedDay(Base):
    """Tokens that a tenant was served on a day, UTC."""

    __tablename__ = "served_days"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    prompt: Mapped[int] = mapped_column(BigInteger)
    cached: Mapped[int] = mapped_column(BigInteger)
    completion: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (CheckConstraint(WHOLE, name="whole"),)
