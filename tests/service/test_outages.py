"""Valkey and PostgreSQL lost and restarted in the middle of a run: jobs finish, nothing committed is lost."""

import pytest
from sqlalchemy.exc import OperationalError

from tests.waiting import until


@pytest.fixture(scope="module")
def undisturbed(stage, steady, client, submit) -> str:
    return stage.whole(client, submit(client, "steady", steps=400))


def test_valkey_loses_everything_and_restarts(stage, steady, client, submit, undisturbed):
    job = submit(client, "steady", steps=400)
    stage.reached(job, 10)
    stage.embedded.restart_valkey(flush=True)
    assert stage.whole(client, job) == undisturbed
    assert steady.alive


def test_a_job_accepted_while_valkey_is_away(stage, steady, client, submit, undisturbed):
    stage.embedded.valkey.kill()
    job = submit(client, "steady", steps=400)  # the API answers: the row is the truth
    assert stage.job(job).state == "queued"
    stage.embedded.restart_valkey(flush=True)
    assert stage.whole(client, job) == undisturbed


def test_postgres_killed_and_restarted_in_the_middle_of_a_run(stage, steady, client, submit, undisturbed):
    job = submit(client, "steady", steps=400)
    stage.reached(job, 10)
    committed = stage.job(job).step
    seen = _noticed(steady)
    stage.embedded.kill_postgres()
    until(lambda: _noticed(steady) > seen, "the worker notices")
    stage.embedded.restart_postgres()
    assert until(lambda: _step(stage, job), "the database answers") >= committed
    assert stage.whole(client, job) == undisturbed
    assert steady.alive


def _noticed(worker):
    """How often it has said that there is no database."""
    said = ("database unreachable", "database unreachable, trying again", "steps not yet written")
    return sum(len(worker.lines(event)) for event in said)


def _step(stage, job):
    try:
        return stage.job(job).step
    except OperationalError:  # a connection that the crash has cut
        return None
