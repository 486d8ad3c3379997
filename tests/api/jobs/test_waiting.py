"""What a job's object says of its wait, and the priority a tenant may give it."""

import time

import pytest
from openai import BadRequestError

from db import outlook
from db.tables import Job
from db.worker.candidates import candidates
from tests.api.conftest import MODEL, client
from tests.api.examples import choices, submit, upload
from tests.db.inserted import a_claim, a_worker


@pytest.fixture
def own(factory, url, request):
    """A tenant of this test, whose jobs run one at a time."""
    return client(factory, url, request.node.name, max_running=1)


def waits(who, job_id):
    return who.openai.fine_tuning.jobs.retrieve(job_id).model_extra["onward"]["waiting"]


def test_a_job_says_why_it_waits_and_when_it_may_begin(own, factory):
    training = upload(own, *choices(2))
    alone = submit(own, training)
    assert alone.model_extra["onward"]["waiting"]["reason"] == "no_worker"
    assert alone.model_extra["onward"]["waiting"]["estimated_start"] is None
    with factory.begin() as session:
        worker = a_worker(session)
        outlook.note(session, MODEL, 8, 3.0)
    first = waits(own, alone.id)
    assert first["reason"] == "turn"
    assert abs(first["estimated_start"] - time.time()) < 3600
    other = submit(own, training)
    with factory.begin() as session:
        a_claim(session, session.get_one(Job, alone.id), worker)
    assert waits(own, alone.id) is None
    assert waits(own, other.id)["reason"] == "max_running"
    listed = {job.id: job.model_extra["onward"]["waiting"] for job in own.openai.fine_tuning.jobs.list()}
    assert listed[alone.id] is None
    assert listed[other.id] == waits(own, other.id) | {"estimated_start": listed[other.id]["estimated_start"]}
    own.openai.fine_tuning.jobs.pause(other.id)
    assert waits(own, other.id)["reason"] == "paused"
    own.openai.fine_tuning.jobs.cancel(other.id)
    assert waits(own, other.id) is None


def test_of_a_tenants_jobs_the_one_of_high_priority_goes_first(own, factory):
    training = upload(own, *choices(2))
    made = {n: submit(own, training, {"priority": n} if n else {}) for n in (0, -100, 100)}
    assert [job.model_extra["onward"]["priority"] for job in made.values()] == [0, -100, 100]
    assert "priority" not in made[100].model_extra["onward"]["spec"]
    with factory.begin() as session:
        mine = [w.job_id for w in candidates(session, MODEL, 100) if w.tenant_id == own.id]
    assert mine == [made[100].id]  # it may run one
    own.openai.fine_tuning.jobs.cancel(made[100].id)
    with factory.begin() as session:
        assert [w.job_id for w in candidates(session, MODEL, 100) if w.tenant_id == own.id] == [made[0].id]


@pytest.mark.parametrize("priority", [-101, 101, 1.5, "high"])
def test_a_priority_out_of_range_is_refused(own, priority):
    with pytest.raises(BadRequestError) as refused:
        submit(own, upload(own, *choices(2)), {"priority": priority})
    assert refused.value.param == "onward.priority"
