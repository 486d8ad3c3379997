"""What a worker process keeps between slices: an engine, a base model, the runs in memory. Knows no order of work."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session, sessionmaker

from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker import metrics
from worker.adapters.snapshots import Prefix, Snapshots
from worker.health import Progress
from worker.runs.cohort import StepResult
from worker.runs.replay import Point
from worker.runs.run import Run
from worker.scoring.scorer import Scorer
from worker.settings import WorkerSettings
from worker.slices.heartbeat import Heartbeat
from worker.slices.journal_writer import Ledger, Pace

log = structlog.get_logger("worker.slices.context")


@dataclass
class Resident:
    """A run whose every step is committed, or is in its ledger. `best` is the point of the best evaluation, where it
    was seen in this process; `snapshot` the step of the last snapshot."""

    run: Run
    spec: JobSpec
    pace: Pace
    prefix: Prefix
    best: Point | None = None
    snapshot: int = 0
    tokens: int = 0  # scored by the last step's probes, 0 where it is not known yet

    def advance(self, run: Run, result: StepResult) -> None:
        """Take the run's next step. Where its best step is the one it stood at, that point is kept for publishing."""
        before = self.run
        if run.best is not None and run.best != before.best:
            known = {before.step: before.point, run.step: run.point}
            self.best = known.get(run.best[0])
        if result.losses is not None:
            self.prefix.add(result.losses)
        self.run, self.tokens = run, result.tokens


@dataclass
class Held:
    """A resident run under a lease."""

    resident: Resident
    ledger: Ledger
    tenant_class: str

    @property
    def job_id(self) -> str:
        return self.ledger.claim.job_id

    @property
    def run(self) -> Run:
        return self.resident.run


@dataclass
class Station:
    """One engine and everything it takes to advance jobs with it. `give_up` ends the process once the slice is
    over, for an engine that cannot be trusted; `suspects` are jobs that were in a batch the engine failed at; `quantum`
    is the mean of tokens that a run scores in a slice."""

    settings: WorkerSettings
    base: Base
    scorer: Scorer
    factory: sessionmaker[Session]
    worker_id: str
    heartbeat: Heartbeat
    ring: Callable[[str], None]
    give_up: Callable[[], None]
    progress: Progress
    residents: OrderedDict[str, Resident] = field(default_factory=OrderedDict)
    suspects: set[str] = field(default_factory=set)
    quantum: float = 1000.0
    busy: threading.Lock = field(default_factory=threading.Lock)  # held while a doorbell is answered
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))

    @property
    def model(self) -> str:
        return self.base.name

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.settings.home / "snapshots")

    def keep(self, job_id: str, resident: Resident) -> None:
        """Keep a run, whose every step is committed, for the next slice; the one unused longest makes room."""
        self.residents[job_id] = resident
        self.residents.move_to_end(job_id)
        while len(self.residents) > self.settings.residents:
            self.residents.popitem(last=False)
        metrics.resident_runs.labels(self.model).set(len(self.residents))

    def forget(self, job_id: str) -> None:
        self.residents.pop(job_id, None)
        metrics.resident_runs.labels(self.model).set(len(self.residents))

    def scored(self, tokens: list[int]) -> None:
        """Learn from the tokens that each run of a slice scored what to expect of the next."""
        for count in tokens:
            self.quantum = max(1.0, 0.8 * self.quantum + 0.2 * count)
