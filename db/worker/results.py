"""What a job leaves beside its adapter: its steps as OpenAI's table of metrics. Knows no lease.

Written from the journal and the evaluations a page at a time: a job of any length takes the same memory.
"""

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from db import files
from db.contract import journal_row
from db.contract.objectives import OBJECTIVES
from db.tables import Evaluation, File, Job, JournalStep, Result

PAGE = 2000  # steps
METRICS = "step_metrics.csv"
COLUMNS = (
    "step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy", "full_valid_loss",
    "full_valid_mean_token_accuracy",
)  # fmt: skip
Cells = tuple[str, str, str, str]
NOTHING: Cells = ("", "", "", "")


def keep(session: Session, job: Job, kind: str, file_id: str) -> None:
    """The file is the job's result of this kind."""
    row = {"tenant_id": job.tenant_id, "job_id": job.id, "kind": kind, "file_id": file_id}
    session.execute(insert(Result).values(**row))


def measure(session: Session, job: Job) -> None:
    """Stores the metrics of a job that ends, whose row is locked, as its result; nothing where it has taken no step.
    Takes a second for every hundred thousand steps."""
    if job.step == 0:
        return
    about: dict[str, Any] = {"filename": METRICS, "purpose": "fine-tune-results", "format": None, "rows": 0}
    file = files.create(job.tenant_id, session, chunks=metrics(session, job), **about)
    keep(session, job, "metrics", file.id)


def metrics(session: Session, job: Job) -> Iterator[bytes]:
    """The table in pieces: a line for each step, counted from 1 as the steps taken, and one for step 0 where the base
    was measured. `train_loss` is the mean of the step's probes, before its update; what was not measured is empty."""
    held_out, method = _held_out(session, job), journal_row.method_of(job.spec)
    yield _lines([COLUMNS])
    if 0 in held_out:
        yield _lines([("0", "", "", *held_out[0])])
    for start in range(0, job.step, PAGE):
        page = JournalStep.job_id == job.id, JournalStep.step >= start, JournalStep.step < start + PAGE
        wanted = select(JournalStep.step, JournalStep.losses).where(*page).order_by(JournalStep.step)
        yield _lines(
            (str(step + 1), _mean(journal_row.losses(row, method)), "", *held_out.get(step + 1, NOTHING))
            for step, row in session.execute(wanted)
        )


def _held_out(session: Session, job: Job) -> dict[int, Cells]:
    """By step: loss and accuracy, and both again where they are of the whole file."""
    whole = session.scalar(select(File.rows).where(File.id == job.validation_file)) if job.validation_file else None
    objective = OBJECTIVES.get(str(job.spec.get("objective")))  # of a spec that this code may not be able to read
    hits = objective is not None and objective.has_accuracy
    found: dict[int, Cells] = {}
    for row in session.scalars(select(Evaluation).where(Evaluation.job_id == job.id)):
        loss, accuracy = _number(row.loss), _number(row.accuracy if hits else None)
        found[row.step] = (loss, accuracy, *((loss, accuracy) if row.rows == whole else ("", "")))
    return found


def _mean(losses: list[float]) -> str:
    finite = [loss for loss in losses if math.isfinite(loss)]
    return _number(math.fsum(finite) / len(finite) if finite else None)


def _number(value: float | None) -> str:
    """The shortest that reads back as it was."""
    return "" if value is None or not math.isfinite(value) else repr(value)


def _lines(rows: object) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return out.getvalue().encode()
