"""Takes from this worker's disk the folders of adapters that their tenants have deleted. Knows no run."""

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from db.worker import published

log = structlog.get_logger("worker.slices.tidy")


class Tidy:
    """Looks at all deleted adapters first, then at those deleted since. What cannot be removed is tried by the next
    process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since: datetime | None = None

    def gone(self, session: Session) -> Sequence[str]:
        """The jobs whose adapters were deleted since the last look."""
        found, self._since = published.deleted(session, self._since)
        return found

    def remove(self, job_ids: Sequence[str]) -> None:
        """Their folders, where this disk has any."""
        for job_id in job_ids:
            folder = self._folder / job_id
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                log.info("adapter removed", job=job_id)
