"""The table of a job's metrics: exact, empty where nothing was measured, and of any length in the same memory."""

import csv
import io
import tracemalloc

import pytest
from sqlalchemy import select, text, update

from db import files
from db.tables import Evaluation, Result
from db.tenant import jobs, results
from db.worker import journal, leases
from db.worker.journal import Evaluated, Published, Step
from db.worker.results import COLUMNS, PAGE, metrics
from tests.db.inserted import a_claim, a_file, a_job, a_tenant, a_worker

STEPS = 12 * PAGE


@pytest.fixture
def tenant(session):
    return a_tenant(session)


def read(session, tenant, file_id):
    return list(csv.DictReader(io.StringIO(b"".join(files.content(tenant, session, file_id)).decode())))


def stepped(session, tenant, **changes):
    job = a_job(session, tenant, validation_file=a_file(session, tenant), **changes)
    claim = a_claim(session, job)
    steps = [Step(0, [0.5, 0.25], 7), Step(1, [float("inf"), 0.1], 7), Step(2, [float("nan")], 7)]
    held = [Evaluated(0, 0.75, 0.5, 1, 3), Evaluated(2, float("inf"), 0.5, 1, 3), Evaluated(3, 0.625, 1.0, 3, 3)]
    journal.flush(session, claim, steps, held)
    return job, claim


def test_a_line_a_step_and_nothing_where_nothing_was_measured(session, tenant):
    job, claim = stepped(session, tenant, steps=3, objective="choice")
    journal.finish(session, claim, Published("ft:a", 3, "0" * 64, "/a", b"tar", b"{}"))
    table, adapter, receipt = results.of_jobs(tenant, session, [job.id])[job.id]
    found = read(session, tenant, table)
    assert tuple(found[0]) == COLUMNS
    assert [tuple(line.values()) for line in found] == [
        ("0", "", "", "0.75", "0.5", "0.75", "0.5"),
        ("1", "0.375", "", "", "", "", ""),
        ("2", "0.1", "", "", "0.5", "", "0.5"),
        ("3", "", "", "0.625", "1.0", "", ""),
    ]
    names = [files.get(tenant, session, file).filename for file in (table, adapter, receipt)]
    assert names == ["step_metrics.csv", f"{job.id}.tar", "receipt.json"]


def test_an_accuracy_that_was_not_measured_is_empty(session, tenant):
    job, claim = stepped(session, tenant, steps=4)
    session.execute(update(Evaluation).where(Evaluation.job_id == job.id).values(accuracy=None))
    journal.fail(session, claim, "x", "failed jobs leave theirs too")
    (table,) = results.of_jobs(tenant, session, [job.id])[job.id]
    found = read(session, tenant, table)
    assert {line["valid_mean_token_accuracy"] for line in found} == {""}
    assert found[0]["valid_loss"] == "0.75"


def test_a_cancelled_job_leaves_its_own_and_one_without_a_step_none(session, tenant):
    job, claim = stepped(session, tenant, steps=4)
    jobs.cancel(tenant, session, job.id)
    leases.release(session, claim)
    fresh = a_job(session, tenant)
    claim = a_claim(session, fresh)
    journal.fail(session, claim, "x", "y")
    assert session.scalars(select(Result.kind).where(Result.job_id == job.id)).all() == ["metrics"]
    assert results.of_jobs(tenant, session, [fresh.id]) == {}


def test_what_an_earlier_release_has_published_is_its_adapter(session, tenant):
    job, claim = stepped(session, tenant, steps=3)
    journal.finish(session, claim, Published("ft:a", 3, "0" * 64, "/a", b"tar"))
    _, adapter = results.of_jobs(tenant, session, [job.id])[job.id]
    session.execute(text("DELETE FROM results"))
    assert results.of_jobs(tenant, session, [job.id]) == {job.id: [adapter]}


def test_the_steps_of_a_long_job_are_streamed(session, tenant):
    job = a_job(session, tenant, steps=STEPS)
    a_claim(session, job, a_worker(session))
    session.execute(
        text("INSERT INTO journal (job_id, step, tenant_id, losses, tokens, token)"
             " SELECT :job, n, :tenant, ARRAY[n / 3.0::float8, n / 7.0::float8], 1, 1"
             " FROM generate_series(0, :last) n"),
        {"job": job.id, "tenant": tenant, "last": STEPS - 1},
    )  # fmt: skip
    job.step = STEPS
    session.flush()
    page = 1000 * PAGE  # bytes: a row of two floats and its line, generously
    tracemalloc.start()
    size = lines = 0
    for piece in metrics(session, job):
        size, lines = size + len(piece), lines + piece.count(b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == STEPS + 1
    assert size > 20 * STEPS
    assert peak < 4 * page, "no more than some pages at a time"
