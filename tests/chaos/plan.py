"""What a storm will do: seed → submissions, traffic and faults, each tied to progress. Pure: knows no clock.

Progress is the share of the storm's planned steps that are committed, so that a slow machine sees the same storm.
"""

import random
from dataclasses import dataclass
from typing import Final

# How often a kind of fault is drawn; each comes at least once where there are as many faults as kinds.
FAULTS: Final = {
    "worker killed": 6,
    "worker frozen past its lease": 3,
    "worker told to end": 2,
    "worker dies after scoring": 2,
    "worker dies before its end is written": 2,
    "disk full": 1,
    "postgres killed": 2,
    "postgres restarted": 1,
    "connections cut in mid-transaction": 3,
    "valkey killed": 1,
    "valkey flushed": 1,
    "valkey away": 1,
    "doorbells doubled": 2,
    "doorbells dropped": 2,
    "api killed": 2,
}
OF_A_WORKER: Final = tuple(kind for kind in FAULTS if kind.startswith("worker"))
STEERS: Final = ("pause", "cancel", "delete file")
LAST: Final = 0.9  # of the progress: what comes later would find nothing to disturb


@dataclass(frozen=True)
class Submission:
    """A job to be asked for `times` times at once under one idempotency key. A `wild` one asks for
    numbers that no run survives: only it may fail."""

    number: int
    tenant: int
    model: str
    steps: int
    batch_size: int
    rank: int
    seed: int
    times: int
    wild: bool = False


@dataclass(frozen=True)
class Event:
    """At progress `at` (0 to 1): `what` is "submit", a steer, "resume", "trespass", "malformed" or "fault"; `who` the
    number of a submission, a tenant or a worker; `how` the kind of fault."""

    at: float
    what: str
    who: int
    how: str = ""


@dataclass(frozen=True)
class Plan:
    seed: int
    tenants: int
    submissions: tuple[Submission, ...]
    events: tuple[Event, ...]

    @property
    def steps(self) -> int:
        return sum(s.steps for s in self.submissions)


def plan(seed: int, *, tenants: int, jobs: int, faults: int, models: dict[str, int], steps: int = 100) -> Plan:
    """The storm of `seed`. `models` says how many workers each model has; the first model's are costly to start (an
    engine's), so it gets a quarter of the jobs, shorter ones, and few of the faults. `steps` is a mean."""
    draw = random.Random(seed)
    submissions = tuple(_submission(draw, number, tenants, list(models), steps) for number in range(jobs))
    events = [Event(0.0 if s.number < jobs / 2 else draw.uniform(0, 0.6), "submit", s.number) for s in submissions]
    begun = {event.who: event.at for event in events}
    for number in draw.sample(range(jobs), jobs // 3):
        at, what = draw.uniform(begun[number], LAST), draw.choice(STEERS)
        events.append(Event(at, what, number))
        if what == "pause":
            events.append(Event(draw.uniform(at, LAST), "resume", number))
    for what in ("trespass", "malformed"):
        events += [Event(draw.uniform(0.05, LAST), what, draw.randrange(tenants)) for _ in range(max(2, jobs // 2))]
    events += _faults(draw, faults, models)
    return Plan(seed, tenants, submissions, tuple(sorted(events, key=lambda e: (e.at, e.what, e.who, e.how))))


def _submission(draw: random.Random, number: int, tenants: int, models: list[str], steps: int) -> Submission:
    costly = number % 4 == 3
    model = models[0] if costly else draw.choice(models[1:] or models)
    return Submission(
        number=number,
        tenant=number % tenants,  # each has some
        model=model,
        steps=max(5, draw.randint(steps // 2, steps * 3 // 2) // (3 if costly else 1)),
        batch_size=draw.choice((2, 4, 8)),
        rank=draw.choice((1, 2, 4)),
        seed=draw.randrange(1 << 16),
        times=draw.choice((1, 2, 3, 3)),
        wild=number % 10 == 9,
    )


def _faults(draw: random.Random, count: int, models: dict[str, int]) -> list[Event]:
    kinds = list(FAULTS)
    more = draw.choices(kinds, list(FAULTS.values()), k=max(0, count - len(kinds)))
    drawn = draw.sample(kinds, min(count, len(kinds))) + more
    draw.shuffle(drawn)
    costly = next(iter(models.values()))
    workers = sum(models.values())
    made = []
    for number, kind in enumerate(drawn):
        at = LAST * (number + draw.random()) / count
        few = kind in OF_A_WORKER and draw.random() < 0.06 and costly
        made.append(Event(at, "fault", draw.randrange(costly) if few else draw.randrange(costly, workers), kind))
    return made
