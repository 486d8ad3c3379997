"""A long, even load with a fault every minute: does memory stay flat, do handles leak? Knows no invariant of rows.

Watched are processes that live all the time; who is killed is another worker, kept for that.
"""

import itertools
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from sqlalchemy import func, select

from db.tables import ENDED, Job
from tests.chaos import faults
from tests.chaos.fleet import Fleet, Post, fleet
from tests.chaos.plan import plan
from tests.chaos.storm import tenant_of
from tests.chaos.traffic import Entry, Traffic
from tests.waiting import alive

MODELS = {"engine": 1, "plain": 2}
TENANTS, UNFINISHED = 6, 8  # how many jobs are kept going
WARM = 0.25  # of the time is not judged
EVERY = 60.0  # seconds from fault to fault
FLAT = 2.0  # per cent an hour
GROWTH, GAINED = "growth (% an hour)", "handles gained"
JUDGED = 30.0  # minutes from which on a slope is more than noise
GENTLE = (
    "postgres killed", "postgres restarted", "connections cut in mid-transaction", "valkey killed", "valkey flushed",
    "doorbells doubled", "doorbells dropped", "worker frozen past its lease",
)  # fmt: skip
# Caches so small that they are full before growth is judged: what fills up to a bound is no leak.
BOUNDED = {"ONWARD_PROMPT_BYTES": str(2**20), "ONWARD_TOKEN_CACHE_FILES": "8"}
ROUGH = ("worker killed", "worker told to end", "worker dies after scoring")  # for the last post alone


@dataclass
class Series:
    """One process: seconds, bytes resident, open handles."""

    pid: int
    at: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    died: bool = False

    def sample(self, at: float) -> None:
        """One that is gone is noted: nobody was to kill it."""
        self.died = self.died or not alive(self.pid)
        if self.died:
            return
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        self.at.append(at)
        self.resident.append(next(int(x.split()[1]) * 1024 for x in status if x.startswith("VmRSS:")))
        self.handles.append(len(list(Path(f"/proc/{self.pid}/fd").iterdir())))

    def told(self, warm: float) -> dict[str, Any]:
        """After the first `warm` seconds: growth in per cent an hour, and handles gained between the quarters."""
        first = next((i for i, at in enumerate(self.at) if at >= warm), 0)
        return {
            "lived": not self.died,
            "MiB": round(median(self.resident[first:] or [0]) / 2**20, 1),
            GROWTH: round(growth(self.at[first:], self.resident[first:]), 2),
            "handles": int(median(self.handles[first:] or [0])),
            GAINED: gained(self.handles[first:]),
            "samples": len(self.at) - first,
        }


def growth(at: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a straight line through the values, in per cent of their mean an hour."""
    if len(set(at)) < 2:
        return 0.0
    return 100 * 3600 * linear_regression(at, values).slope / (sum(values) / len(values))


def gained(values: Sequence[int]) -> float:
    """By how much the median of the last quarter lies above that of the first."""
    if not values:
        return 0.0
    quarter = max(1, len(values) // 4)
    return float(median(values[-quarter:]) - median(values[:quarter]))


def soaked(minutes: float, logs: Path | None = None, seed: int = 1) -> dict[str, Any]:
    """The figures of each process that lived through it, and what is broken: judged from half an hour on."""
    os.environ.update(BOUNDED)
    with fleet(list(MODELS), logs) as made:
        made.posts += [Post("engine", "vllm", {"ONWARD_SELF_CHECK": "false"}), Post("plain"), Post("plain")]
        made.tend()
        made.all_ready()
        series = {"api": made.api, "engine worker": made.posts[0].process, "plain worker": made.posts[1].process}
        watched = {name: Series(process.pid) for name, process in series.items() if process is not None}
        load = Load(made, seed)
        load.run(60 * minutes, watched)
        found = {name: one.told(WARM * 60 * minutes) for name, one in watched.items()}
        wrong = [x for x in broken(found) if minutes >= JUDGED or x.endswith("died")]
        return {
            "minutes": minutes, "processes": found, "jobs": load.jobs(), "steps": load.steps(),
            "faults": dict(sorted(load.injected.items())), "broken": wrong,
        }  # fmt: skip


def broken(found: dict[str, dict[str, Any]]) -> list[str]:
    out = [f"{name} died" for name, x in found.items() if not x["lived"]]
    for name, x in found.items():
        out += [f"{name} grows by {x[GROWTH]} % an hour"] if x[GROWTH] > FLAT else []
        out += [f"{name} gained {x[GAINED]} handles"] if x[GAINED] > 2 else []
    return out


class Load:
    """Jobs of some tenants, as many at a time as there were, and requests between them."""

    def __init__(self, made: Fleet, seed: int) -> None:
        self.fleet, self.draw = made, random.Random(seed)
        planned = plan(seed, tenants=TENANTS, jobs=200, faults=0, models=MODELS)
        self._next = itertools.cycle(planned.submissions)
        self.traffic = Traffic(made.url, [tenant_of(made, f"soak-{i}") for i in range(TENANTS)], [])
        self.injected: dict[str, int] = {}

    def run(self, seconds: float, watched: dict[str, Series]) -> None:
        begun = time.monotonic()
        due = sampled = 0.0
        while (now := time.monotonic() - begun) < seconds:
            self.fleet.tend()
            if self._unfinished() < UNFINISHED:
                self._submit()
            if now - sampled > 5:
                sampled = now
                for one in watched.values():
                    one.sample(now)
                self._look()
            if now - due > EVERY:
                due = now
                self._fault()
            time.sleep(0.2)

    def jobs(self) -> dict[str, int]:
        counted = select(Job.state, func.count()).group_by(Job.state)
        return dict(self.fleet.answered(lambda session: session.execute(counted).all()) or [])

    def steps(self) -> int:
        return int(self.fleet.answered(lambda session: session.scalar(select(func.sum(Job.step)))) or 0)

    def _unfinished(self) -> int:
        left = select(func.count()).where(Job.state.not_in(ENDED))
        found = self.fleet.answered(lambda session: session.scalar(left))
        return UNFINISHED if found is None else found

    def _submit(self) -> None:
        # A number of its own: the idempotency key is made of it.
        entry = Entry(type(first := next(self._next))(**vars(first) | {"number": len(self.traffic.entries)}))
        self.traffic.entries.append(entry)
        self.traffic.submit(entry)

    def _look(self) -> None:
        tenant = self.draw.randrange(TENANTS)
        self.draw.choice((self.traffic.snoop, self.traffic.babble))(tenant)
        client = self.traffic.clients[tenant]
        for job in client.fine_tuning.jobs.list(limit=5).data:
            client.fine_tuning.jobs.list_events(job.id, limit=20)

    def _fault(self) -> None:
        kind = self.draw.choice((*GENTLE, *ROUGH))
        post = self.fleet.posts[2] if kind in ROUGH else self.fleet.posts[self.draw.choice((1, 2))]
        faults.DO[kind](self.fleet, post, self.steps)
        self.injected[kind] = self.injected.get(kind, 0) + 1
