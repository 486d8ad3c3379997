"""A job on a large file: answered at once, counted outside of the request, durably, and decided as inside of one."""

import threading

import openai
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import ProgrammingError

from api import token_counts
from api.token_counts import counting
from db import security
from db.tables import Audit, FileChunk, Job, TokenCount, Validation
from db.worker.candidates import candidates
from tests.api.conftest import Client, client, serving
from tests.api.examples import http, upload
from tests.api.processes import process
from tests.waiting import until

ROWS = 300
OWN = {"steps": 7, "rank": 2, "seed": 3}


def rows(name: str, count: int = ROWS) -> list[dict[str, str]]:
    return [{"prompt": f"{name} {'a' * (i % 40)}", "completion": " yes"} for i in range(count)]


def make(who, file, model="tiny", **own):
    return who.openai.fine_tuning.jobs.create(model=model, training_file=file, extra_body={"onward": OWN | own})


def now(who, job):
    return who.openai.fine_tuning.jobs.retrieve(job.id)


def decided(who, job):
    until(lambda: now(who, job).status != "validating_files", "it is decided")
    return now(who, job)


@pytest.fixture(scope="module")
def outside(settings):
    """An API that counts nothing inside of a request."""
    with serving(settings.model_copy(update={"count_inside_bytes": 0, "sweep_seconds": 0.3})) as found:
        yield found


@pytest.fixture(scope="module")
def carl(factory, outside):
    return client(factory, outside, "carl")


class Held:
    """Counts that read one row and then go on only when they are let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), 0

    def counting(self, base, rows, ids=()):
        self.begun += 1
        while not self.go.wait(0.01):
            yield
        return (yield from counting(base, rows, ids))


@pytest.fixture
def held(monkeypatch):
    found = Held()
    monkeypatch.setattr(token_counts, "counting", found.counting)
    yield found
    found.go.set()


def test_a_job_is_answered_at_once_and_comes_to_what_it_comes_to_inside(held, carl, anna, factory):
    data = rows("same")
    job = make(carl, upload(carl, *data))
    assert (job.status, job.trained_tokens, job.fine_tuned_model, job.seed) == ("validating_files", None, None, 3)
    own = job.model_extra["onward"]
    assert (own["price_tokens"], own["total_steps"], own["spec"], own["validated_rows"]) == (None, None, None, 0)
    assert own["waiting"]["reason"] == "validating"
    with factory.begin() as session:
        assert job.id not in [waits.job_id for waits in candidates(session, "tiny", limit=1000)]
    held.go.set()
    after = decided(carl, job)
    like = make(anna, upload(anna, *data))
    assert after.status == like.status == "queued"
    for name in ("price", "price_tokens", "total_steps", "invocation"):
        assert after.model_extra["onward"][name] == like.model_extra["onward"][name]
    assert after.model_extra["onward"]["price_tokens"] > 0
    specs = [one.model_extra["onward"]["spec"] | {"training_file": ""} for one in (after, like)]
    assert specs[0] == specs[1]
    said = [event.message for event in carl.openai.fine_tuning.jobs.list_events(job.id)]
    assert any("are being validated" in one for one in said)
    assert any("Files validated, job queued" in one for one in said)
    with factory.begin() as session:
        assert session.get(Validation, job.id) is None
        entry = session.scalars(select(Audit).where(Audit.object == job.id, Audit.action == "job.queue")).one()
        assert entry.actor == "api"


def test_what_was_counted_is_kept_and_decides_inside_of_the_next_request(carl, settings, factory, held):
    held.go.set()
    file = upload(carl, *rows("kept"))
    first = decided(carl, make(carl, file))
    with factory.begin() as session:
        assert len(session.scalars(select(TokenCount).where(TokenCount.file_id == file)).all()) == 1
    with serving(settings.model_copy(update={"count_inside_bytes": 0})) as url:  # a process that has counted nothing
        other = Client(carl.id, carl.secret, carl.openai.with_options(base_url=url))
        second = make(other, file, steps=8)
        assert second.status == "queued"
        assert held.begun == 1
    for job in (first, second):
        carl.openai.fine_tuning.jobs.cancel(job.id)
    carl.openai.files.delete(file)
    with factory.begin() as session:
        assert session.scalars(select(TokenCount).where(TokenCount.file_id == file)).all() == []


def test_a_bad_row_ends_the_job_with_its_line(carl):
    long = [{"prompt": "a " * 4000, "completion": " yes"}]
    job = decided(carl, make(carl, upload(carl, *rows("bad", 5), *long, *rows("bad", 5))))
    assert (job.status, job.error.code, job.error.param) == ("failed", "invalid_file_format", "training_file")
    assert job.error.message.startswith("Line 6: ")
    assert job.finished_at is not None
    last = carl.openai.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert (last.level, "Line 6" in last.message) == ("error", True)


def test_what_the_rows_do_not_decide_is_refused_in_the_request(carl):
    file = upload(carl, *rows("early", 5))
    with pytest.raises(openai.BadRequestError) as refused:
        make(carl, file, rank=65)
    assert refused.value.param == "onward.rank"


def test_a_price_over_the_quota_ends_the_job_and_reserves_nothing(factory, outside):
    poor = client(factory, outside, "poor", token_quota=10)
    job = decided(poor, make(poor, upload(poor, *rows("poor"))))
    assert (job.status, job.error.code) == ("failed", "insufficient_quota")
    with factory.begin() as session:
        assert session.get_one(Job, job.id).price_tokens == 0


def test_while_it_is_validated_it_is_cancelled_at_once_never_paused_and_counts_as_a_job(held, factory, outside):
    who = client(factory, outside, "one-job", max_jobs=1)
    file = upload(who, *rows("cancel"))
    job = make(who, file)
    with pytest.raises(openai.RateLimitError):
        make(who, file, steps=8)
    with pytest.raises(openai.ConflictError, match="being validated"):
        who.openai.fine_tuning.jobs.pause(job.id)
    until(lambda: held.begun, "it is being counted")
    assert who.openai.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    held.go.set()
    with factory.begin() as session:
        assert session.get(Validation, job.id) is None
        assert session.get_one(Job, job.id).decided_at is None
    assert now(who, job).model_extra["onward"]["price_tokens"] is None


def test_a_file_that_is_deleted_meanwhile_is_read_to_its_end(held, carl, factory):
    file = upload(carl, *rows("deleted"))
    job = make(carl, file)
    until(lambda: held.begun, "it is being counted")
    carl.openai.files.delete(file)
    held.go.set()
    assert decided(carl, job).status == "queued"
    carl.openai.fine_tuning.jobs.cancel(job.id)
    with factory.begin() as session:
        assert session.scalars(select(FileChunk.number).where(FileChunk.file_id == file)).all() == []


def test_a_request_that_is_repeated_finds_the_job_that_is_being_validated(held, carl):
    file = upload(carl, *rows("again", 5))
    body = {"model": "tiny", "training_file": file, "onward": OWN}
    headers = {"Authorization": f"Bearer {carl.secret}", "Idempotency-Key": file}
    posts = [http.post(f"{carl.openai.base_url}fine_tuning/jobs", headers=headers, json=body).json() for _ in range(2)]
    assert posts[0]["id"] == posts[1]["id"]
    assert posts[1]["status"] == "validating_files"


def test_a_process_that_is_killed_while_it_counts_leaves_the_job_to_the_next(settings, factory):
    """By SIGKILL: the price is to the token that of a decision inside of a request."""
    settings = settings.model_copy(update={"models": {"killed": settings.models["tiny"]}})  # nobody else counts for it
    changed = {"count_inside_bytes": 0, "lease_seconds": 1.0, "sweep_seconds": 0.2, "max_rows": 100_000}
    data = rows("killed", 15_000)
    with process(settings, **changed) as (started, root):
        who = client(factory, f"{root}/v1", "killed")
        job = make(who, upload(who, *data), "killed")
        assert job.status == "validating_files"
        until(lambda: (now(who, job).model_extra["onward"]["validated_rows"] or 0) > 0, "some rows are counted")
        started.kill()
        started.wait()
    with factory.begin() as session:
        assert session.get_one(Validation, job.id).holder is not None, "it was killed in the middle"
    with process(settings, **changed) as (_, root):
        again = Client(who.id, who.secret, who.openai.with_options(base_url=f"{root}/v1"))
        after = decided(again, job)
        assert after.status == "queued"
    with serving(settings.model_copy(update={"max_rows": 100_000})) as url:
        inside = client(factory, url, "not-killed")
        like = make(inside, upload(inside, *data), "killed")
        assert like.model_extra["onward"]["price_tokens"] == after.model_extra["onward"]["price_tokens"]


def test_after_too_many_kills_it_is_given_up(factory, outside, carl, held):
    job = make(carl, upload(carl, *rows("poison", 5)))
    until(lambda: held.begun, "it is being counted")
    with factory.begin() as session:
        gone = {"tries": 99, "holder": "nobody", "expires_at": text("now() - interval '1 second'")}
        session.execute(update(Validation).where(Validation.job_id == job.id).values(gone))
    after = decided(carl, job)
    assert (after.status, after.error.code) == ("failed", "server_error")


def test_what_is_decided_is_not_rewritten_and_what_is_not_is(factory, as_api, carl, held):
    file = upload(carl, *rows("fixed", 5))
    job = make(carl, file)
    change = text("UPDATE jobs SET price_tokens = 0, request = request WHERE id = :id")
    with security.transaction(as_api, carl.id) as session:
        assert session.execute(change, {"id": job.id}).rowcount == 1
    held.go.set()
    decided(carl, job)
    with security.transaction(as_api, carl.id) as session, pytest.raises(ProgrammingError, match="not rewritten"):
        session.execute(change, {"id": job.id})
