"""What is read in one trip with others (db/one_trip.py), read alone in a session's own transaction."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.one_trip import Read
from db.tables import ServedDay
from db.usage import UTC_DAY


def rows(session: Session, read: Read) -> list[tuple[Any, ...]]:
    session.flush()
    return [tuple(row) for row in session.connection().exec_driver_sql(read.sql, dict(read.given))]


def served_today(tenant: str, session: Session) -> int:
    """Tokens of prompts and answers that the tenant was served since midnight, UTC."""
    of_day = select(ServedDay.prompt + ServedDay.completion)
    return session.scalar(of_day.where(ServedDay.tenant_id == tenant, ServedDay.day == UTC_DAY)) or 0
