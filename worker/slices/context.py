"""What a worker process keeps between slices: an engine, a base model, the runs in memory. Knows no order of work."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from db import queue, security, workers
from db.contract.tokens.base_model import Base
from db.store.opening import Stores
from db.worker.candidates import Waiting
from worker import metrics
from worker.adapters.snapshots import Snapshots
from worker.health import Progress
from worker.runs.replay import Point
from worker.scoring.scorer import Watched
from worker.settings import WorkerSettings
from worker.slices.ending import PASSING, Out
from worker.slices.heartbeat import Heartbeat
from worker.slices.receipts import Receipts
from worker.slices.resident import Resident
from worker.slices.shares import Shares


@dataclass
class Context:
    """One engine and everything it takes to advance jobs with it. `give_up` ends the process once the slice is
    over, for an engine that cannot be trusted; `quantum` is the mean of tokens that a run scores in a slice; `shares`
    are what the tenants of the last slice had coming."""

    settings: WorkerSettings
    base: Base
    scorer: Watched
    factory: sessionmaker[Session]
    worker_id: str
    heartbeat: Heartbeat
    ring: Callable[[str], None]
    give_up: Callable[[], None]
    progress: Progress
    stores: Stores | None = None  # of files' bytes; None: the database alone
    receipts: Receipts = field(default_factory=Receipts)
    residents: OrderedDict[str, Resident] = field(default_factory=OrderedDict)
    quantum: float = 1000.0
    shares: Shares = field(default_factory=Shares)
    busy: threading.Lock = field(default_factory=threading.Lock)  # held while a doorbell is answered
    wake: Callable[[], None] = lambda: None  # who rebuilds steps that tenants have asked for
    committed: Callable[[str, Point], None] = lambda *_: None  # who serves jobs as they are: the last committed point
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))

    @property
    def model(self) -> str:
        return self.base.name

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Whether the jobs need derivatives that this worker takes."""
        return workers.kinds(self.settings.takes)

    @property
    def bells(self) -> tuple[str, ...]:
        """What this worker answers."""
        return queue.bells(self.model, self.kinds)

    def ring_for(self, waiting: Iterable[Waiting]) -> None:
        """Ring for each kind of job among these."""
        for autograd in sorted({job.autograd for job in waiting}):
            self.ring(queue.bell(self.model, autograd))

    def transaction(self, tenant: str) -> AbstractContextManager[Session]:
        """One transaction on the rows of the tenant with this id."""
        return security.transaction(self.factory, tenant)

    def across(self) -> AbstractContextManager[Session]:
        """One transaction on what a scheduler may know of every tenant's jobs."""
        return security.across(self.factory)

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.settings.home / "snapshots")

    def leave_service(self, out: Out) -> None:
        """Take no slice any more; an engine that is not to be trusted ends with its process; disk and store may come
        back."""
        self.heartbeat.leave_service(out)
        if out.reason not in PASSING:
            self.give_up()

    def keep(self, job_id: str, resident: Resident) -> None:
        """Keep a run, whose every step is committed, for the next slice; the one unused longest makes room, and one in
        the middle of a step only where all are."""
        self.residents[job_id] = resident
        self.residents.move_to_end(job_id)
        while len(self.residents) > self.settings.residents:
            still = (job_id for job_id, kept in self.residents.items() if kept.under_way is None)
            self.residents.pop(next(still, next(iter(self.residents))))
        metrics.resident_runs.labels(self.model).set(len(self.residents))

    def forget(self, job_id: str) -> None:
        """Let the run go; unknown ids are no error."""
        self.residents.pop(job_id, None)
        metrics.resident_runs.labels(self.model).set(len(self.residents))

    def forget_all(self) -> None:
        """Let every run go that is not under a lease."""
        self.residents.clear()
        metrics.resident_runs.labels(self.model).set(0)

    def learn(self, tokens: list[int]) -> None:
        """From the tokens that each run of a slice scored, what to expect of the next."""
        for count in tokens:
            self.quantum = max(1.0, 0.8 * self.quantum + 0.2 * count)
