"""A doorbell is one slice, rung again while work is left; and is nothing where the worker drains or has no database."""

import pytest
import structlog
from celery.exceptions import WorkerShutdown

from db.ids import new_id
from db.queue import TASK, celery_app, queue_name, ringer
from tests.waiting import HANG
from tests.worker.slices.doubles import STEPS, Unreliable, counted
from worker import metrics
from worker.slices import tasks


@pytest.fixture
def app(redis_url):
    """A worker's own Celery app, made before anything was rung with it."""
    celery_app.cache_clear()
    yield tasks.listener(redis_url)
    celery_app.cache_clear()


@pytest.fixture
def doorbell(app, context):
    return tasks.bind(app, context)


@pytest.fixture
def short(context):
    """Slices of one step."""
    context.settings = context.settings.model_copy(update={"slice_seconds": 1e-9})


def test_a_doorbell_is_a_slice_and_the_last_one_is_not_rung_again(context, doorbell, submit, row, rung):
    job_id = submit()
    doorbell()
    assert (row(job_id).state, row(job_id).step) == ("succeeded", STEPS)
    assert rung == []


def test_it_rings_again_while_work_is_left(context, doorbell, submit, short, row, rung):
    job_id = submit()
    doorbell()
    assert (row(job_id).state, row(job_id).step) == ("queued", 1)
    assert rung == [context.model]
    while rung:
        rung.pop()
        doorbell()
    assert (row(job_id).state, row(job_id).step) == ("succeeded", STEPS)


def test_a_doorbell_without_work_is_answered_with_nothing(doorbell, rung):
    doorbell()
    assert rung == []


def test_a_draining_worker_takes_nothing_and_rings_nobody(context, doorbell, submit, row, rung):
    job_id = submit()
    context.factory = Unreliable(context.factory)
    context.heartbeat.draining.set()
    doorbell()
    assert context.factory.begun == 0, "the database is not even asked"
    assert (row(job_id).state, row(job_id).fence) == ("queued", 0)
    assert rung == []


def test_a_worker_told_to_drain_in_a_slice_ends_it_with_its_step_and_rings_nobody(context, doorbell, submit, row, rung):
    job_id = submit()
    context.scorer.sees = lambda _: context.heartbeat.draining.set()
    doorbell()
    assert (row(job_id).state, row(job_id).step) == ("queued", 1)
    assert rung == []


def test_a_database_that_is_away_ends_the_slice_and_is_counted(context, doorbell, submit, row, rung, lines):
    job_id = submit()
    context.factory = Unreliable(context.factory, "away")
    before = counted(metrics.slice_errors.labels(context.model))
    doorbell()
    assert counted(metrics.slice_errors.labels(context.model)) == before + 1
    assert [x["event"] for x in lines] == ["slice ended early"]
    assert rung == [], "the sweep rings once the database is back"
    doorbell()
    assert row(job_id).state == "succeeded"


def test_a_database_lost_while_claiming_ends_with_what_was_claimed(context, doorbell, submit, row, lines):
    first, second = submit(2), submit(3)
    context.factory = Unreliable(context.factory, "well", "well", "well", "away")  # candidates, claim, load, claim
    doorbell()
    assert {row(first).state, row(second).state} == {"succeeded", "queued"}
    assert "not boarded" in [x["event"] for x in lines]


def test_lines_of_a_slice_carry_its_name(context, doorbell, submit):
    submit()
    names = []
    context.scorer.sees = lambda _: names.append(structlog.contextvars.get_contextvars()["slice"])
    doorbell()
    doorbell()
    assert len(names) == STEPS
    assert len(set(names)) == 1
    assert names[0].startswith("slc_")
    assert "slice" not in structlog.contextvars.get_contextvars()


def test_the_task_answers_and_is_busy_while_it_does(app, context, doorbell, submit, row):
    job_id, busy = submit(), []
    context.scorer.sees = lambda _: busy.append(context.busy.locked())
    app.tasks[TASK].run()
    assert row(job_id).state == "succeeded"
    assert busy == [True] * STEPS
    assert not context.busy.locked()


def test_the_task_of_a_draining_worker_ends_the_process(app, context, doorbell):
    context.heartbeat.draining.set()
    with pytest.raises(WorkerShutdown) as end:
        app.tasks[TASK].run()
    assert end.value.code == 0
    assert not context.busy.locked()


def test_doorbells_are_taken_without_acknowledgement(app):
    """One whose acknowledgement failed would count as in hand for ever: none is owed."""
    name = new_id("m-")
    ringer(app)(name)
    with app.connection_for_read() as connection:
        queue = app.amqp.queues.select_add(queue_name(name))
        consumer = app.amqp.TaskConsumer(connection.default_channel, queues=[queue])
        assert consumer.no_ack
        heard = []
        consumer.register_callback(lambda _, message: heard.append(message))
        consumer.consume()
        connection.drain_events(timeout=HANG)
        assert heard[0].headers["task"] == TASK
        assert not connection.default_channel.qos._delivered
