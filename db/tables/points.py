"""Points of a run that cannot be had from its journal: kept whole while the job has not ended."""

from sqlalchemy import CheckConstraint, Integer
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, of_tenant


class Point(Base):
    """A piece of the point after `step` steps, from 0: parameters and the method's state, as one file has them
    (`worker/adapters/snapshots.py`). Of a job there are the newest and the best; they go when it ends."""

    __tablename__ = "points"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    data: Mapped[bytes]
    __table_args__ = (
        of_tenant("job_id", "jobs", "fk_points_job"),
        CheckConstraint("step > 0 AND number >= 0", name="whole"),
    )
