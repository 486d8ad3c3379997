"""The uncommitted steps of a leased run, written behind: what has been scored and is not in the journal yet.

Knows the database's journal and its refusals, no engine and no schedule."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session, sessionmaker

from db import security
from db.contract.history import Restart
from db.worker import journal, leases
from db.worker.journal import Evaluated, Step
from db.worker.leases import Claim, LeaseLost
from db.worker.points import Kept
from worker import metrics
from worker.runs.replay import Point
from worker.slices.pace import Pace
from worker.slices.persist import BACK_OFF, CLOCK, UNREACHABLE, Clock, persist

log = structlog.get_logger("worker.slices.journal_writer")


@dataclass(frozen=True)
class Part:
    """What one transaction commits of a run."""

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    best: tuple[int, float] | None = None
    restarts: tuple[Restart, ...] = ()
    points: list[Kept] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.steps and not self.evaluations


@dataclass
class JournalWriter:
    """Writes the steps of one claim. `flush_due` does so in the background; at most one write is under way.

    A refused write sets `refused`: the run must be dropped, what it has not committed is void. Where the journal is not
    enough to go on from, rows wait for the next point that is kept, and are committed with it.
    """

    claim: Claim
    model: str
    factory: sessionmaker[Session]
    pace: Pace
    clock: Clock = CLOCK
    now: Callable[[], Point | None] = lambda: None  # where its run is
    told: Callable[[str, Point], None] = lambda *_: None  # of a job's point, once every step up to it is committed
    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    best: tuple[int, float] | None = None
    restarts: tuple[Restart, ...] = ()
    points: list[Kept] = field(default_factory=list)
    oldest: float = 0.0
    tokens: int = 0  # scored under this claim
    refused: bool = False
    _under_way: Future[None] | None = None
    _sent: Part | None = None
    _reached: Point | None = None  # where the run was when it was sent
    _retry_at: float = 0.0
    _committed: int = field(init=False)  # the step that a point was committed of
    _unsure: bool = False  # a write ended without an answer: it may have been committed

    def __post_init__(self) -> None:
        self._committed = self.claim.step

    @property
    def whole(self) -> bool:
        """Rows wait for points."""
        return self.claim.spec.method.replay == "snapshots"

    @property
    def empty(self) -> bool:
        """Nothing is to be committed now."""
        return self._part().empty if self.whole else not self.steps and not self.evaluations

    @property
    def kept(self) -> int:
        """The step of the last point that is committed or waits for it."""
        return self.points[-1].step if self.points else self._committed

    def keep(self, point: Kept) -> None:
        """The run can go on from here: what it has taken up to this step may be committed. Of those that wait the best
        and the last are enough."""
        best = None if self.best is None else self.best[0]
        self.points = [*(p for p in self.points if p.step == best), point]

    def add(
        self,
        step: Step | None,
        evaluation: Evaluated | None,
        best: tuple[int, float] | None,
        tokens: int,
        restarts: tuple[Restart, ...] = (),
    ) -> None:
        """One step's outcome: `best` is (step, held-out loss) after it, `tokens` what it scored in all, and `restarts`
        are all up to now: what a step led to is committed with it."""
        if self.empty:
            self.oldest = self.clock.now()
        if step is not None:
            self.steps.append(step)
        if evaluation is not None:
            self.evaluations.append(evaluation)
        self.best, self.restarts = best, restarts
        self.tokens += tokens

    def flush_due(self, pool: Executor, every: float) -> None:
        """Start a write if the oldest uncommitted step is `every` seconds old; notice how the last one ended.

        A job's very first step is written at once: its tenant sees that it has begun.
        """
        self._hear(wait=False)
        every = 0.0 if self.steps and self.steps[0].step == 0 else every
        now = self.clock.now()
        if self._under_way is None and not self.empty and now - self.oldest >= every and now >= self._retry_at:
            self._sent, self._reached = self._part(), self.now()
            self._under_way = pool.submit(self._write, self._sent)

    def flush(self, until: Callable[[], float]) -> None:
        """Everything is committed on return. Raises LeaseLost where it was refused, OperationalError where the
        database could not be reached before `until()`."""
        self._hear(wait=True)
        if self.refused:
            raise LeaseLost(self.claim.job_id)
        if not self.empty:
            self._sent, self._reached = (part := self._part()), self.now()
            try:
                persist(lambda: self._write(part), until, self.clock)
            except LeaseLost:
                self._refuse()
                raise
            self._forget_sent()

    def lag(self) -> float:
        """Age in seconds of the oldest uncommitted step."""
        return 0.0 if self.empty else self.clock.now() - self.oldest

    def _part(self) -> Part:
        """What can be committed now."""
        if not self.whole:
            return Part(list(self.steps), list(self.evaluations), self.best, self.restarts)
        upto = self.kept
        return Part(
            [step for step in self.steps if step.step < upto],
            [evaluated for evaluated in self.evaluations if evaluated.step <= upto],
            self.best if self.best is None or self.best[0] <= upto else None,
            tuple(restart for restart in self.restarts if restart.at <= upto),
            list(self.points),
        )

    def _write(self, part: Part) -> None:
        steps = part.steps
        done = steps[-1].step + 1 if steps else self.claim.spec.steps
        finish = self.pace.finish(done, self.claim.spec.steps)
        try:
            with security.transaction(self.factory, self.claim.tenant_id) as session:
                if self._unsure:
                    committed = leases.lock(session, self.claim).step
                    steps = [s for s in steps if s.step >= committed]
                journal.flush(
                    session, self.claim, steps, part.evaluations, part.best, finish, part.restarts, part.points
                )
        except UNREACHABLE:
            self._unsure = True
            raise

    def _hear(self, wait: bool) -> None:
        """How the write in the background ended, if it has, or once it has."""
        if self._under_way is None or not (wait or self._under_way.done()):
            return
        try:
            self._under_way.result()
            self._forget_sent()
        except LeaseLost:
            self._refuse()
        except UNREACHABLE as error:
            self._retry_at = self.clock.now() + BACK_OFF[-1]
            log.warning("steps not yet written", job=self.claim.job_id, error=str(error).partition("\n")[0])
        finally:
            self._under_way = None

    def _forget_sent(self) -> None:
        sent = self._sent or Part()
        del self.steps[: len(sent.steps)], self.evaluations[: len(sent.evaluations)]
        self._committed = max([self._committed, *(point.step for point in sent.points)])
        self.points = [point for point in self.points if point.step > self._committed]
        self.oldest = self.clock.now()
        if self._reached is not None and sent.steps and sent.steps[-1].step + 1 == self._reached.state.step:
            self.told(self.claim.job_id, self._reached)

    def _refuse(self) -> None:
        self.refused = True
        metrics.fenced_writes.labels(self.model).inc()
