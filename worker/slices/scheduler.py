"""Who goes next: weighted fair share over scored tokens. Pure; knows no SQL, no clock and no queue."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What the choice depends on (`db.worker.candidates.Waiting` is one)."""

    @property
    def job_id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def virtual(self) -> float: ...
    @property
    def priority(self) -> int: ...


@dataclass(frozen=True)
class Length:
    """Of a slice: so many seconds, and so many steps at least."""

    seconds: float
    steps: int = 1

    def over(self, elapsed: float, taken: int) -> bool:
        return elapsed >= self.seconds and taken >= self.steps


PROBATION = 0.25  # of a slice: eight suspects take two slices together


def length(slice_seconds: float, suspect: bool, deaths: int) -> Length:
    """Of a slice, which for a suspect is its probation: short, and longer with every worker that died while it was
    held, so that a job which ends its worker every third step is not cleared by taking two."""
    if not suspect:
        return Length(slice_seconds)
    return Length(min(slice_seconds, slice_seconds * PROBATION * max(1, deaths)), max(1, deaths))


C = TypeVar("C", bound=Candidate)


def pick(waiting: Sequence[C], limit: int, quantum: float) -> list[C]:
    """At most `limit` of `waiting`, in the order they are to be claimed.

    Fair queueing on virtual times: the tenant that is furthest behind gives its first job (by priority, then age), and
    `quantum` tokens (what a run is expected to score in one slice, > 0) over its weight are charged for it before the
    next choice. So tenants of equal use and weight take turns, one with twice the weight gets twice the places, and one
    with many jobs gains nothing by it. Nobody counts as further behind than `burst`: what a tenant had no jobs to use
    is not paid later. Ties go to the older job, then to the id: the answer does not depend on the order of `waiting`.
    """
    jobs: dict[str, deque[C]] = {}
    for job in sorted(waiting, key=lambda job: (-job.priority, job.created_at, job.job_id)):
        jobs.setdefault(job.tenant_id, deque()).append(job)
    most = burst(limit, quantum)
    virtual = {tenant: max(own[0].virtual, -most / own[0].weight) for tenant, own in jobs.items()}
    picked: list[C] = []
    while jobs and len(picked) < limit:
        tenant = min(jobs, key=lambda t: (virtual[t], jobs[t][0].created_at, jobs[t][0].job_id))
        job = jobs[tenant].popleft()
        picked.append(job)
        virtual[tenant] += quantum / job.weight
        if not jobs[tenant]:
            del jobs[tenant]
    return picked


def burst(limit: int, quantum: float) -> float:
    """Scored tokens of one slice: the most that a tenant, of weight 1, may be behind the clock."""
    if quantum <= 0:
        raise ValueError("quantum must be positive")
    return limit * quantum
