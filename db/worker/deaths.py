"""What is held against a job: the workers that fell silent while they held it. Pure over a row; asks no clock."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from db.tables import Job

KEPT = 32  # the newest of a job


def record(job: Job, *, worker: str, token: int, time: datetime, alone: bool) -> None:
    """One more, and the job is a suspect. It counts where the job was `alone` with its worker: no other can have been
    the cause."""
    said = {"worker": worker, "token": token, "step": job.step, "time": _utc(time).isoformat(), "alone": alone}
    job.deaths = [*job.deaths, said][-KEPT:]
    job.suspect = True


def recent(job: Job, now: datetime, seconds: float) -> list[Mapping[str, Any]]:
    """Those of the last `seconds`, oldest first. Committed steps clear nothing: a job may end its worker every other
    step."""
    since = _utc(now) - timedelta(seconds=seconds)
    return [death for death in job.deaths if datetime.fromisoformat(death["time"]) > since]


def told(deaths: list[Mapping[str, Any]]) -> str:
    """In a sentence: how often, at which steps, with which workers and when."""
    steps, workers = (", ".join(dict.fromkeys(str(death[x]) for death in deaths)) for x in ("step", "worker"))
    first, last = deaths[0]["time"], deaths[-1]["time"]
    what = f"{len(deaths)} workers ended while they ran it alone, at step {steps}"
    return f"{what}, from {first} to {last}: {workers}"


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)
