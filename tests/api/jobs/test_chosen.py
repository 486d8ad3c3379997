"""What an answer says of the method that its request did not name, and that a repeated request is answered alike."""

import openai
import pytest

from db import workers
from db.tables import Worker
from tests.api.examples import CHAT, choices, submit, upload


@pytest.fixture
def torch_worker(factory):
    """A worker that takes jobs which need derivatives, as long as the test lasts."""
    with factory.begin() as session:
        made = workers.register(session, model="tiny", host="here", pid=1)
        session.get_one(Worker, made).takes = "all"
    yield
    with factory.begin() as session:
        workers.leave(session, made)


def first_event(who, job):
    return list(who.openai.fine_tuning.jobs.list_events(job.id))[-1].message


def test_auto_says_which_method_and_why(anna):
    job = submit(anna, upload(anna, *choices(4)), {"method": "auto"})
    chosen = job.onward["chosen"]
    assert chosen["method"] == job.onward["spec"]["method"]["name"] == "mezo"
    assert "not measured" in chosen["why"]
    assert chosen["why"] in first_event(anna, job)


def test_chat_rows_take_a_gradient_where_a_worker_has_one(anna, torch_worker):
    job = submit(anna, upload(anna, *[CHAT] * 4))
    assert job.onward["chosen"]["method"] == job.onward["spec"]["method"]["name"] == "first_order"


def test_a_repeated_request_is_answered_with_the_job_it_made(anna, factory):
    file, key = upload(anna, *[CHAT] * 3), {"Idempotency-Key": "chosen-once"}
    made = submit(anna, file, seed=5, extra_headers=key)
    with factory.begin() as session:  # another method would be chosen now
        worker = workers.register(session, model="tiny", host="here", pid=2)
        session.get_one(Worker, worker).takes = "autograd"
    again = submit(anna, file, seed=5, extra_headers=key)
    with factory.begin() as session:
        workers.leave(session, worker)
    assert (again.id, again.onward["chosen"]) == (made.id, made.onward["chosen"])
    assert again.onward["chosen"]["method"] == "mezo"


def test_a_method_that_was_named_was_not_chosen(anna):
    assert submit(anna, upload(anna, *choices(4)), {"method": "lozo"}).onward["chosen"] is None


def test_a_probe_too_small_for_the_workers_dtype_is_refused_before_anything_is_queued(anna, factory):
    file = upload(anna, *choices(4))
    with factory.begin() as session:
        worker = workers.register(session, model="tiny", host="here", pid=3, about={"dtype": "bfloat16"})
    try:
        with pytest.raises(openai.BadRequestError) as refused:
            submit(anna, file, {"method": "mezo", "eps": 1e-2})
        preset = submit(anna, file, {"method": "mezo"})
    finally:
        with factory.begin() as session:
            workers.leave(session, worker)
    assert refused.value.param == "onward.eps"
    assert preset.onward["spec"]["method"]["eps"] == 3e-2
