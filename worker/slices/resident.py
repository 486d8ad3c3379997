"""Runs in a worker's memory, between leases and under one. Knows what a run came to, no order of work."""

from dataclasses import dataclass

from db.contract.spec import JobSpec
from db.worker.leases import Claim
from worker.adapters.snapshots import Prefix
from worker.runs.cohort import Batch, Stepping, StepResult
from worker.runs.run import Run
from worker.slices.journal_writer import JournalWriter
from worker.slices.pace import Pace


@dataclass
class UnderWay:
    """A wide step that is scored a wave at a turn: in other runs' company, and over slices. `batch` is None before its
    first wave; `tokens` and `seconds` are what its waves have taken."""

    stepping: Stepping
    batch: Batch | None = None
    tokens: int = 0
    seconds: float = 0.0

    @property
    def next(self) -> int:
        """Tokens of the next wave, 0 before the first."""
        return 0 if self.batch is None else self.batch.tokens


@dataclass
class Resident:
    """A run whose every step is committed, or is with its writer. `snapshot` is the step of the last snapshot;
    `under_way` the step that it is in the middle of, nothing of which is anywhere else."""

    run: Run
    spec: JobSpec
    pace: Pace
    prefix: Prefix
    snapshot: int = 0
    tokens: int = 0  # scored by the last step's probes, 0 where it is not known yet
    under_way: UnderWay | None = None

    def advance(self, run: Run, result: StepResult) -> None:
        """Take the run's next step."""
        if result.losses is not None:
            self.prefix.add(result.losses)
        for restart in run.watch.restarts[len(self.run.watch.restarts) :]:
            self.prefix.back(restart)
        self.run, self.tokens = run, result.tokens


@dataclass
class LeasedRun:
    """A resident run under a lease."""

    resident: Resident
    writer: JournalWriter
    tenant_class: str
    weight: float = 1.0  # of its tenant

    @property
    def claim(self) -> Claim:
        return self.writer.claim

    @property
    def job_id(self) -> str:
        return self.claim.job_id

    @property
    def run(self) -> Run:
        return self.resident.run

    @property
    def scored_tokens(self) -> int:
        """What the job has cost, under earlier claims and this one."""
        return self.claim.scored_tokens + self.writer.tokens
