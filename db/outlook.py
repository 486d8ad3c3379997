"""What a wait is foretold from: how fast a model goes, for whom, and how many at a time. Written by sweeps. Names no
tenant, so that a tenant may be told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import workers
from db.tables import Clock

# The rate is that of the minutes in which anything was scored: the time that a job waits is no idle time. The minute
# that is not over yet counts only where there is no other.
NOTE = text("""
    WITH of_late AS (
        SELECT minute, sum(tokens) AS tokens FROM usage
         WHERE model = :model AND minute > now() - interval '10 minutes' GROUP BY minute
    ), whole AS (
        SELECT sum(tokens) / (60.0 * count(*)) AS rate FROM of_late WHERE minute < date_trunc('minute', now())
    ), begun AS (
        SELECT tokens / greatest(extract(epoch FROM now() - minute), 1) AS rate
          FROM of_late WHERE minute = date_trunc('minute', now())
    ), active AS (
        SELECT sum(t.weight) AS weights
          FROM shares s JOIN tenants t ON t.id = s.tenant_id
         CROSS JOIN LATERAL (
            SELECT FROM jobs j
             WHERE j.model = s.model AND j.tenant_id = s.tenant_id AND j.state IN ('queued', 'running') LIMIT 1
         ) waits
         WHERE s.model = :model
    )
    INSERT INTO clocks AS c (model, rate, weights, places, slice_seconds, noted_at)
    SELECT CAST(:model AS varchar), coalesce((SELECT rate FROM whole), (SELECT rate FROM begun), 0),
           coalesce((SELECT weights FROM active), 0), CAST(:places AS integer), CAST(:slice AS float8),
           clock_timestamp()
        ON CONFLICT (model) DO UPDATE
       SET rate = excluded.rate, weights = excluded.weights, places = excluded.places,
           slice_seconds = excluded.slice_seconds, noted_at = excluded.noted_at
""")


@dataclass(frozen=True)
class Outlook:
    """Of a model: `rate` scored tokens a second, of all its tenants with jobs, whose weights are `weights` together;
    `places` runs step at one time, for `slice_seconds`. As of `noted_at`; None: never noted."""

    rate: float = 0.0
    weights: float = 0.0
    places: int = 0
    slice_seconds: float = 0.0
    noted_at: datetime | None = None


def note(session: Session, model: str, cohort: int, slice_seconds: float) -> None:
    """What is to be seen of `model` now, whose workers take `cohort` runs each."""
    places = cohort * workers.count(session, model)
    session.execute(NOTE, {"model": model, "places": places, "slice": slice_seconds})


def read(session: Session, model: str) -> Outlook:
    """As it was noted last."""
    wanted = select(Clock.rate, Clock.weights, Clock.places, Clock.slice_seconds, Clock.noted_at)
    found = session.execute(wanted.where(Clock.model == model)).first()
    return Outlook(*found) if found is not None else Outlook()
