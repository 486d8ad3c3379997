"""What must hold after a storm, and figures of how it went: from rows and answers to findings. Starts no process.

The functions that count are pure; `judged` reads the database and replays every adapter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.overview import jain
from db.tables import Adapter, Evaluation, Event, Job, JournalStep, Lease, Tenant
from tests.chaos.fleet import SLICE, Fleet, models_of
from tests.chaos.storm import Storm
from tests.chaos.traffic import Answer, Entry
from worker.adapters import verify

AFTERMATH = 3.0  # seconds after an outage in which a request may still meet a connection that it cut
Interval = tuple[float, float]


@dataclass
class Invariant:
    """`wrong` names what breaks it; `of` is how many were looked at."""

    name: str
    wrong: list[str]
    of: int | None = None

    @property
    def held(self) -> bool:
        return not self.wrong


@dataclass
class Verdict:
    """Of a storm: what must hold, and what was measured."""

    invariants: list[Invariant] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[Invariant]:
        return [i for i in self.invariants if not i.held]


@dataclass(frozen=True)
class Record:
    """A job as the database has it at the end. Times are seconds since the epoch; `commits` those of its journal's
    steps, `waiting` the intervals in which it was not paused, from its creation to its end."""

    id: str
    tenant: str
    model: str
    state: str
    error: str
    step: int
    total: int
    scored: int
    paid: int  # by the rows of its journal and its evaluations
    steps: tuple[int, ...]  # of its journal
    commits: tuple[float, ...]
    created: float
    waiting: tuple[Interval, ...]
    leased: bool


def allowed(entry: Entry) -> set[str]:
    """The states in which the job of `entry` may end."""
    states = {"accepted": {"cancelled"}, "unclear": {"cancelled", "succeeded"}}.get(entry.cancel, {"succeeded"})
    return states | ({"failed"} if entry.submission.wild else set())


def doubled(record: Record) -> int:
    """Steps that were counted twice: in the journal, or paid for."""
    return len(record.steps) - len(set(record.steps)) + (record.scored != record.paid)


def missing(record: Record, seen: int) -> int:
    """Steps that the journal lacks, of those the job counts, and of those that were ever seen committed."""
    return len(set(range(max(record.step, seen))) - set(record.steps))


def unasked(answers: Iterable[Answer], outages: Sequence[Interval]) -> list[str]:
    """Answers 5xx, or none at all, to requests that no outage can explain."""
    out = []
    for answer in answers:
        bad = answer.status == 0 or answer.status >= 500
        explained = any(begun <= answer.ended and answer.begun <= ended + AFTERMATH for begun, ended in outages)
        if bad and not explained:
            out.append(f"{answer.what}: {answer.status} after {answer.ended - answer.begun:.1f} s")
    return out


def kept(mine: Sequence[float], others: Sequence[float], waiting: Sequence[Interval], tick: float) -> float:
    """The longest time in which others took steps and this tenant, who waited, took none, in seconds.

    It is told on a clock that others' steps drive: each adds what has passed since the one before, at most `tick`. So
    an outage, in which nobody steps, keeps nobody from anything.
    """
    longest = 0.0
    ticks = sorted(others)
    for begun, ended in waiting:
        marks = [begun, *(t for t in sorted(mine) if begun <= t <= ended), ended]
        for low, high in pairwise(marks):
            last, total = low, 0.0
            for at in ticks:
                if low < at <= high:
                    total += min(at - last, tick)
                    last = at
            longest = max(longest, total)
    return longest


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that a share `q` of `values` does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same points, in disjoint intervals in order."""
    out: list[Interval] = []
    for begun, ended in sorted(intervals):
        if out and begun <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], ended))
        else:
            out.append((begun, ended))
    return out


def company(first: Sequence[Sequence[float]], alone: Sequence[Sequence[float]]) -> float:
    """The largest difference of two journals of one job, in nats."""
    pairs = [(x, y) for a, b in zip(first, alone, strict=True) for x, y in zip(a, b, strict=True)]
    return max((abs(x - y) for x, y in pairs), default=0.0)


def judged(fleet: Fleet, storm: Storm, twins: Mapping[str, str]) -> Verdict:
    """The verdict on a storm that is over. `twins` are jobs that ran again alone, by the job they repeat."""
    entries, answers = storm.traffic.entries, storm.traffic.answers
    with fleet.factory.begin() as session:
        records = {r.id: r for r in recorded(session) if r.id not in twins.values()}
        adapters = session.execute(select(Adapter.id, Adapter.job_id)).all()
        by_key = select(Job.tenant_id, Job.idempotency_key, func.count()).where(Job.idempotency_key.like("storm-%"))
        again = [str(r) for r in session.execute(by_key.group_by(Job.tenant_id, Job.idempotency_key)) if r[2] != 1]
        shares = Shares(session, records.values())
        changes = {a: company(_losses(session, a), _losses(session, b)) for a, b in twins.items()}
    mine = {job: entry for entry in entries for job in entry.ids}
    wanted = [e for e in entries if not (e.submission.wild and e.refused)]
    lost = [f"submission {e.submission.number}: {e.ids} {e.refused}" for e in wanted if len(e.ids) != 1]
    ended = [
        f"{r.id} is {r.state} {r.error}"
        for r in records.values()
        if r.id in mine and r.state not in allowed(mine[r.id])
    ]
    failed = [f"{r.id}: {r.error}" for r in records.values() if r.state == "failed" and not _wild(mine.get(r.id))]
    seen = storm.seen.steps
    different = _different(fleet, [adapter for adapter, _ in adapters])
    holds = [
        Invariant("accepted jobs lost or doubled", [*lost, *again, *storm.traffic.odd], len(wanted)),
        Invariant("jobs that did not end as they should", ended, len(mine)),
        Invariant("jobs failed for another's fault", failed, len(mine)),
        Invariant(
            "journal steps lost",
            [f"{r.id}: {n}" for r in records.values() if (n := missing(r, seen.get(r.id, 0)))],
            sum(len(r.steps) for r in records.values()),
        ),
        Invariant("journal steps duplicated", [f"{r.id}: {n}" for r in records.values() if (n := doubled(r))]),
        Invariant("adapters that differ from their replay", different, len(adapters)),
        Invariant("cross-tenant reads", storm.traffic.trespass.leaks, storm.traffic.trespass.attempts),
        Invariant("answers 5xx outside an outage", unasked(answers, fleet.outages), len(answers)),
        Invariant("leases left behind", [r.id for r in records.values() if r.leased and r.id in mine], len(mine)),
    ]
    return Verdict(holds, figures(fleet, storm, list(records.values()), shares, changes))


def figures(
    fleet: Fleet, storm: Storm, records: list[Record], shares: "Shares", changes: Mapping[str, float]
) -> dict[str, Any]:
    """How it went, in numbers."""
    by: dict[str, dict[str, int]] = {"state": {}, "kind": {}}
    for record in records:
        by["state"][record.state] = by["state"].get(record.state, 0) + 1
    for kind, _, _ in storm.seen.injected:
        by["kind"][kind] = by["kind"].get(kind, 0) + 1
    waits = [r.commits[0] - r.created for r in records if r.commits]
    longest = max((shares.kept(t, m) for t, m in shares.pairs), default=0.0)
    return {
        "submissions": len(storm.plan.submissions),
        "jobs by state": by["state"],
        "refused at admission": sum(bool(e.refused) for e in storm.traffic.entries),
        "faults": len(storm.seen.injected),
        "faults by kind": dict(sorted(by["kind"].items())),
        "requests": len(storm.traffic.answers),
        "longest time one tenant kept another from a step, faults included (s)": round(longest, 2),
        "the same in slices": round(longest / SLICE, 2),
        "largest change by company (nats)": max(changes.values(), default=0.0),
        "jobs run again alone": len(changes),
        "jain index of tokens over weights while all waited": shares.jain(),
        "wait to the first step (s)": {
            "p50": round(quantile(waits, 0.5), 2),
            "p95": round(quantile(waits, 0.95), 2),
            "max": round(max(waits, default=0.0), 2),
        },
        "workers that ended by themselves": sum(len(post.ended) for post in fleet.posts),
        "seconds": round(storm.seen.seconds, 1),
    }


class Shares:
    """Who stepped when, by tenant and model."""

    def __init__(self, session: Session, records: Iterable[Record]) -> None:
        self._records = list(records)
        self._weights = dict(session.execute(select(Tenant.id, Tenant.weight)).all())
        at = func.extract("epoch", JournalStep.created_at)
        self._tokens = session.execute(select(JournalStep.tenant_id, at, JournalStep.tokens)).all()
        self.pairs = sorted({(r.tenant, r.model) for r in self._records})

    def kept(self, tenant: str, model: str) -> float:
        mine = [r for r in self._records if (r.tenant, r.model) == (tenant, model)]
        others = [t for r in self._records if r.model == model and r.tenant != tenant for t in r.commits]
        waiting = union(i for r in mine for i in r.waiting)
        return kept([t for r in mine for t in r.commits], others, waiting, SLICE)

    def jain(self) -> float | None:
        """Over the time in which every tenant had taken its first step and none its last; None where there is none."""
        tenants = {r.tenant for r in self._records if r.commits}
        spans = [
            (min(t for r in self._records if r.tenant == x for t in r.commits[:1]),
             max(t for r in self._records if r.tenant == x for t in r.commits[-1:]))
            for x in tenants
        ]  # fmt: skip
        low, high = max((a for a, _ in spans), default=0.0), min((b for _, b in spans), default=0.0)
        if high <= low:
            return None
        used = dict.fromkeys(tenants, 0.0)
        for tenant, at, tokens in self._tokens:
            if tenant in used and low <= float(at) <= high:
                used[tenant] += tokens
        return round(jain([used[t] / self._weights[t] for t in tenants]), 4)


def recorded(session: Session) -> list[Record]:
    """Every job of the database."""
    steps: dict[str, list[tuple[int, float, int]]] = {}
    for job, step, at, tokens in session.execute(
        select(JournalStep.job_id, JournalStep.step, JournalStep.created_at, JournalStep.tokens).order_by(
            JournalStep.job_id, JournalStep.step
        )
    ):
        steps.setdefault(job, []).append((step, at.timestamp(), tokens))
    evaluated = dict(
        session.execute(select(Evaluation.job_id, func.sum(Evaluation.tokens)).group_by(Evaluation.job_id)).all()
    )
    held = set(session.scalars(select(Lease.job_id)))
    turns: dict[str, list[tuple[float, str]]] = {}
    told = select(Event.job_id, Event.created_at, Event.message).order_by(Event.created_at)
    for job, when, message in session.execute(told.where(Event.message.regexp_match("^Job (paused|resumed)"))):
        turns.setdefault(job, []).append((when.timestamp(), message.split()[1]))
    out = []
    for job in session.scalars(select(Job)):
        rows = steps.get(job.id, [])
        out.append(
            Record(
                job.id,
                job.tenant_id,
                job.model,
                job.state,
                str(job.error or ""),
                job.step,
                job.total_steps,
                job.scored_tokens,
                sum(t for _, _, t in rows) + int(evaluated.get(job.id, 0)),
                tuple(s for s, _, _ in rows),
                tuple(at for _, at, _ in rows),
                job.created_at.timestamp(),
                tuple(unpaused(job.created_at, job.finished_at, turns.get(job.id, []))),
                job.id in held,
            )
        )
    return out


def unpaused(created: datetime, finished: datetime | None, turns: Sequence[tuple[float, str]]) -> list[Interval]:
    """From creation to end (or the last turn), without what lies between a pause and the resume after it."""
    begun: float | None = created.timestamp()
    out = []
    for at, what in turns:
        if what == "paused" and begun is not None:
            out.append((begun, at))
            begun = None
        elif what == "resumed" and begun is None:
            begun = at
    if begun is not None and finished is not None:
        out.append((begun, finished.timestamp()))
    return out


def _losses(session: Session, job: str) -> list[list[float]]:
    found = select(JournalStep.losses).where(JournalStep.job_id == job).order_by(JournalStep.step)
    return [list(row) for row in session.scalars(found)]


def _wild(entry: Entry | None) -> bool:
    return entry is not None and entry.submission.wild


def _different(fleet: Fleet, adapters: Sequence[str]) -> list[str]:
    out = []
    with pytest.MonkeyPatch.context() as here:
        here.setenv("ONWARD_MODELS", models_of(fleet))
        for adapter in adapters:
            found = verify.verify(fleet.database_url, fleet.home, adapter)
            if not found.ok:
                out.append(
                    f"{found.job_id}: {found.sha256} replayed, {found.expected} recorded, {found.on_disk} on disk"
                )
    return out
