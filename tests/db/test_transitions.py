"""The table of transitions against the real schema: complete, allowed by every constraint, and the only way."""

import ast
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from db import transitions
from db.tables import ENDED, JOB_STATES, Base, Job, Lease, Validation
from db.transitions import TABLE, Condition, WrongState
from tests.db.inserted import a_job, a_tenant, a_worker

COMES_TO = {
    "spec": {"steps": 3}, "spec_version": 1, "request": {"price": 7}, "total_steps": 3, "price_tokens": 7,
    "autograd": True,
    "expected_start": datetime(2026, 1, 1, tzinfo=UTC),
}  # fmt: skip
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
ACTS: dict[str, Callable[[Session, Job], None]] = {
    "admit": lambda session, job: transitions.admit(session, job, COMES_TO),
    "claim": transitions.claim,
    "release": transitions.release,
    "wish pause": lambda _, job: transitions.wish(job, "pause"),
    "wish cancel": lambda _, job: transitions.wish(job, "cancel"),
    "withdraw": lambda _, job: transitions.withdraw(job),
    "pause": transitions.pause,
    "resume": lambda _, job: transitions.resume(job),
    "cancel": transitions.cancel,
    "succeed": transitions.succeed,
    "fail": lambda session, job: transitions.fail(session, job, "a_code", "a reason"),
}
ALLOWED = [(name, before) for name, found in TABLE.items() for before in found.before]
REFUSED = [(name, before) for name in TABLE for before in CONDITIONS if before not in TABLE[name].before]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def checks(session) -> dict[str, str]:
    """The CHECK constraints of the table of jobs, as the database has them: name to expression."""
    found = text("""
        SELECT conname, pg_get_expr(conbin, conrelid) FROM pg_constraint
         WHERE conrelid = 'jobs'::regclass AND contype = 'c'
    """)
    return {row.conname: row.pg_get_expr for row in session.execute(found)}


def values(expression: str) -> set[str]:
    return set(re.findall(r"'(\w+)'", expression))


def standing(session: Session, condition: Condition) -> Job:
    """A whole job in this condition, written without a transition: leased where it runs, all its steps committed."""
    job = a_job(session, a_tenant(session))
    job.state, job.wish = transitions.stored(condition)
    if condition == "validating_files":
        job.decided_at, job.price_tokens, job.expected_start = None, 0, None
        session.add(Validation(job_id=job.id, tenant_id=job.tenant_id, model=job.model))
        session.flush()
        session.refresh(job)
        return job
    job.step, job.scored_tokens, job.attempts, job.fence = job.total_steps, 70, 2, 3
    if job.state in ENDED:
        job.finished_at = datetime.now(UTC)
    else:
        job.estimated_finish = datetime.now(UTC)
    if job.state == "failed":
        job.error = {"code": "before"}
    if job.state == "running":
        worker, expiry = a_worker(session), datetime.now(UTC)
        session.flush()
        session.add(Lease(job_id=job.id, tenant_id=job.tenant_id, worker_id=worker, token=3, expires_at=expiry))
    session.flush()
    session.refresh(job)
    return job


def row(job: Job) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in inspect(Job).column_attrs}


def everything(session: Session) -> dict[str, list[str]]:
    return {table: sorted(session.scalars(text(f"SELECT t::text FROM {table} t"))) for table in Base.metadata.tables}


def test_the_tables_conditions_are_the_schemas_states_and_wishes(checks):
    states, wishes = zip(*map(transitions.stored, CONDITIONS), strict=True)
    assert values(checks["ck_jobs_state"]) == set(states) == set(JOB_STATES)
    assert values(checks["ck_jobs_wish"]) == set(wishes) - {None}
    ends = {end for found in TABLE.values() for end in (*found.before, found.after)}
    assert ends <= set(CONDITIONS)
    assert set(TABLE) == set(ACTS)


def test_every_condition_is_reached_from_the_start_and_no_ended_job_goes_on():
    reached: set[str] = {"validating_files"}
    while new := {found.after for found in TABLE.values() if reached & set(found.before)} - reached:
        reached |= new
    assert reached == set(CONDITIONS)
    assert not {before for found in TABLE.values() for before in found.before} & set(ENDED)


def test_what_may_become_of_a_job_that_nobody_runs_or_that_is_wished_upon():
    ways = {condition: {name for name, found in TABLE.items() if condition in found.before} for condition in CONDITIONS}
    assert ways["validating_files"] == {"admit", "cancel", "fail"}
    assert ways["queued"] == {"claim", "pause", "cancel", "fail"}
    assert ways["paused"] == {"resume", "cancel"}
    # A run may come to its end before its worker has seen the wish: done is as good as paused, and not as cancelled.
    assert ways["being paused"] == {"pause", "cancel", "wish cancel", "withdraw", "succeed", "fail"}
    assert ways["being cancelled"] == {"cancel", "fail"}, "a cancel is not taken back, and nobody claims the job anew"


@pytest.mark.parametrize("name, before", ALLOWED)
def test_a_transition_does_what_the_table_says_and_satisfies_every_constraint(session, checks, name, before):
    job, found = standing(session, before), TABLE[name]
    old = row(job)
    ACTS[name](session, job)
    session.flush()
    session.refresh(job)
    assert transitions.condition(job) == found.after
    assert len(checks) == sum(c.name is not None and c.name.startswith("ck_") for c in Job.__table__.constraints) >= 10
    for constraint, expression in checks.items():
        holds = session.scalar(text(f"SELECT ({expression}) IS NOT FALSE FROM jobs WHERE id = :id"), {"id": job.id})
        assert holds, constraint
    changed = {key for key, value in row(job).items() if value != old[key]} - {"state", "wish"}
    if before == "validating_files":  # of which nothing has run that could be estimated
        assert changed == set(found.changes) - {"estimated_finish"}
        assert session.get(Validation, job.id, populate_existing=True) is None
    else:
        assert changed == set(found.changes)
    leased = session.get(Lease, job.id, populate_existing=True) is not None
    assert leased == (old["state"] == "running" and not found.lease_ends)


@pytest.mark.parametrize("name, before", REFUSED)
def test_from_any_other_condition_it_is_refused_and_nothing_changes(session, name, before):
    job = standing(session, before)
    was = everything(session)
    with pytest.raises(WrongState) as refused:
        ACTS[name](session, job)
    assert (refused.value.state, refused.value.wanted) == (before, TABLE[name].word)
    session.flush()
    assert everything(session) == was


def test_what_columns_come_to_hold(session):
    job = standing(session, "queued")
    transitions.claim(session, job)
    transitions.release(session, job)
    transitions.pause(session, job)
    transitions.resume(job)
    assert (job.fence, job.attempts) == (4, 2), "attempts are the release before's to count"
    transitions.fail(session, job, "a_code", "a reason")
    assert job.error == {"code": "a_code", "message": "a reason", "param": None}
    assert job.estimated_finish is None


def sets_a_state(node: ast.AST) -> bool:
    """Whether a piece of code writes an attribute or a column called `state`."""
    match node:
        case ast.Attribute(attr="state", ctx=ast.Store() | ast.Del()):
            return True
        case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value="state"), *_]):
            return True
        case ast.Call(func=ast.Name(id="Job") | ast.Attribute(attr="values"), keywords=keywords):
            return any(keyword.arg == "state" for keyword in keywords)
        case ast.Constant(value=str(said)):
            return re.search(r"update\s+jobs\b", said, re.IGNORECASE) is not None
    return False


@pytest.mark.parametrize(
    "code",
    [
        "job.state = 'queued'",
        "job.state, job.wish = 'queued', None",
        "setattr(job, 'state', 'queued')",
        "update(Job).values(state='queued')",
        "Job(id='a', state='paused')",
        "text('UPDATE jobs SET state = 1')",
    ],
)
def test_the_search_below_finds_it(code):
    assert any(sets_a_state(node) for node in ast.walk(ast.parse(code)))


def test_nothing_else_sets_a_jobs_state():
    rooms = ("api", "db", "worker", "cli", "bench", "migrations")
    files = [path for room in rooms for path in sorted((REPOSITORY / room).rglob("*.py"))]
    found = {
        str(path.relative_to(REPOSITORY))
        for path in files
        if any(sets_a_state(node) for node in ast.walk(ast.parse(path.read_text())))
    }
    # A way back is no transition: the code before has no such state. Restorations have states of their own.
    others = {"migrations/versions/0009_validating_and_uploads.py", "db/worker/restorations.py"}
    assert found == {"db/transitions.py", *others}
