"""What a tenant may ask for beside what it has: jobs at one time, and scored tokens in all. Knows no file."""

from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.tables import Job, Tenant


class QuotaExceeded(Exception):
    """`what` is "tokens" or "jobs"; `limit`, what it allows, `used`, what is taken, `asked`, what was wanted."""

    def __init__(self, what: Literal["tokens", "jobs"], limit: int, used: int, asked: int) -> None:
        super().__init__(f"{what}: {used} of {limit} are taken and {asked} more were asked for")
        self.what, self.limit, self.used, self.asked = what, limit, used, asked


def check_jobs(owner: Tenant, session: Session) -> None:
    """Raises QuotaExceeded where no job more may be open. The tenant's row is locked."""
    open_jobs = select(func.count()).where(Job.tenant_id == owner.id, Job.finished_at.is_(None))
    count = session.scalar(open_jobs) or 0
    if count >= owner.max_jobs:
        raise QuotaExceeded("jobs", owner.max_jobs, count, 1)


def check_tokens(owner: Tenant, session: Session, price: int) -> None:
    """Raises QuotaExceeded where `price` does not fit beside what is spent and promised; a job that is being validated
    promises nothing yet. The tenant's row is locked."""
    open_jobs = select(func.sum(Job.price_tokens))
    due = session.scalar(open_jobs.where(Job.tenant_id == owner.id, Job.finished_at.is_(None)))
    used = owner.spent_tokens + int(due or 0)
    if owner.token_quota is not None and used + price > owner.token_quota:
        raise QuotaExceeded("tokens", owner.token_quota, used, price)
