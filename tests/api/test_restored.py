"""Steps by number where no worker is: what is told, what is bounded; and how a table of metrics is sent."""

import base64

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from api.content import in_base64
from db import ids
from db.tables import Job, Restoration, RestoredChunk
from db.tenant import restorations
from db.worker import journal, leases
from db.worker import restorations as rebuilding
from db.worker.journal import Published, Step
from tests.api.conftest import client
from tests.api.examples import choices, submit, upload
from tests.db.inserted import a_worker
from tests.waiting import HANG


@pytest.fixture(scope="module")
def carla(factory, url):
    return client(factory, url, "carla", max_bytes=100_000)


def stepped(who, factory, steps: int = 20, publish: bool = False):
    """A job of that many steps, taken and given back, or published."""
    job_id = submit(who, upload(who, *choices(3)), {"steps": steps}).id
    with factory.begin() as session:
        claim = leases.claim(session, job_id, a_worker(session, "elsewhere"), HANG, 5)
        journal.flush(session, claim, [Step(n, [1.0, 2.0], 10) for n in range(steps)])
        if publish:
            name = ids.adapter_name("tiny", who.id, None, job_id)
            journal.finish(session, claim, Published(name, steps, "0" * 64, "/x", b"tar"))
        else:
            leases.release(session, claim)
    return job_id


@pytest.fixture(scope="module")
def job(carla, factory):
    return stepped(carla, factory)


def told(who, job: str, step: int, url: str) -> httpx.Response:
    key = {"authorization": f"Bearer {who.secret}"}
    return httpx.get(f"{url}/files/{ids.step_file(job, step)}/content", headers=key, timeout=HANG)


def test_without_a_worker_it_is_asked_for_and_said(carla, factory, job, url):
    answer = told(carla, job, 3, url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_worker")
    assert answer.headers["retry-after"] == "30"
    assert "'tiny'" in answer.json()["error"]["message"]
    with factory.begin() as session:
        a_worker(session)
    answer = told(carla, job, 3, url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "being_rebuilt")
    assert answer.headers["retry-after"] == "5"
    with factory.begin() as session:
        assert session.scalar(select(func.count()).where(Restoration.job_id == job, Restoration.step == 3)) == 1


def test_what_is_rebuilt_is_read_until_it_goes_and_counts_as_held(carla, factory, job, url):
    told(carla, job, 4, url)
    with factory.begin() as session:
        worker = a_worker(session)
        asked = rebuilding.Asked(carla.id, job, 4)
        assert rebuilding.claim(session, asked, worker)
        assert rebuilding.ready(session, asked, worker, "a" * 64, b"x" * 90_000)
    answer = told(carla, job, 4, url)
    assert (answer.status_code, answer.content) == (200, b"x" * 90_000)
    assert answer.headers["content-type"] == "application/x-tar"
    about = carla.openai.files.retrieve(ids.step_file(job, 4))
    assert (about.bytes, about.model_extra["onward"]["adapter_sha256"]) == (90_000, "a" * 64)
    assert about.expires_at > about.created_at
    assert about.id not in [file.id for file in carla.openai.files.list()]
    rows = choices(100)
    with pytest.raises(openai.APIStatusError, match="do not fit") as full:
        upload(carla, *rows, *rows)
    assert full.value.status_code == 413
    assert carla.openai.files.delete(about.id).deleted
    upload(carla, *choices(50))


def test_a_tenant_asks_for_so_many_at_a_time(ben, factory, url):
    job = stepped(ben, factory)
    answers = [told(ben, job, step, url).status_code for step in range(restorations.MOST + 1)]
    assert answers == [409] * restorations.MOST + [429]


def test_a_step_that_failed_is_said_with_its_reason(ben, anna, factory, url):
    job = stepped(anna, factory)
    told(anna, job, 2, url)
    with factory.begin() as session:
        error = {"code": "journal_gone", "message": "its journal is not kept any more"}
        row = update(Restoration).where(Restoration.job_id == job)
        session.execute(row.values(state="failed", error=error, expires_at=func.now()))
    answer = told(anna, job, 2, url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "journal_gone")
    assert told(ben, job, 2, url).json() == told(ben, "ftjob-" + "z" * 24, 2, url).json() | {
        "error": told(ben, job, 2, url).json()["error"]
    }
    assert told(ben, job, 2, url).status_code == 404


def test_a_model_goes_with_everything_and_its_job_says_so(anna, factory, url):
    job = stepped(anna, factory, publish=True)
    found = anna.openai.fine_tuning.jobs.retrieve(job)
    told(anna, job, 2, url)
    name = ids.checkpoint_name(found.fine_tuned_model, 2)
    assert anna.openai.models.retrieve(name).id == name
    with pytest.raises(openai.PermissionDeniedError, match="journal"):
        anna.openai.models.delete(name)
    table, adapter = found.result_files
    assert anna.openai.files.content(ids.step_file(job, 20)).read() == b"tar"  # which is what was published
    anna.openai.models.delete(found.fine_tuned_model)
    for file in (table, adapter, ids.step_file(job, 2), ids.step_file(job, 20)):
        with pytest.raises(openai.NotFoundError):
            anna.openai.files.content(file)
    for gone in (found.fine_tuned_model, name):
        with pytest.raises(openai.NotFoundError):
            anna.openai.models.retrieve(gone)
    with pytest.raises(openai.NotFoundError, match="was deleted"):
        submit(anna, upload(anna, *choices(3)), model=name)
    left = anna.openai.fine_tuning.jobs.retrieve(job)
    assert (left.status, left.result_files) == ("succeeded", [])
    assert left.model_extra["onward"]["adapter"]["deleted_at"] > 0
    with factory.begin() as session:
        assert session.scalar(select(func.count()).where(Restoration.job_id == job)) == 0
        assert session.scalar(select(func.count()).where(RestoredChunk.job_id == job)) == 0
        assert session.get(Job, job).step == 20


def test_the_table_alone_may_go(anna, factory):
    job = stepped(anna, factory, publish=True)
    table, adapter = anna.openai.fine_tuning.jobs.retrieve(job).result_files
    anna.openai.files.delete(table)
    left = anna.openai.fine_tuning.jobs.retrieve(job)
    assert (left.fine_tuned_model is not None, left.result_files) == (True, [adapter])


def test_a_parents_hash_that_is_not_known_is_asked_for(anna, factory, url):
    job = stepped(anna, factory, publish=True)
    found = anna.openai.fine_tuning.jobs.retrieve(job).fine_tuned_model
    child = submit(anna, upload(anna, *choices(3)), model=found)
    assert child.model_extra["onward"]["spec"]["parent"] == {"job": job, "step": 20, "sha256": "0" * 64}
    with pytest.raises(openai.ConflictError) as later:
        submit(anna, upload(anna, *choices(3)), model=ids.checkpoint_name(found, 5))
    assert later.value.code in ("being_rebuilt", "no_worker")
    with factory.begin() as session:
        assert session.get(Job, child.id).parent_id == job
        assert session.get(Restoration, (job, 5)).state == "asked"
    for name in ("ft:tiny:a::b", "adpt-none", ids.checkpoint_name(found, 21), f"{found}:ckpt-step-x"):
        with pytest.raises(openai.NotFoundError):
            submit(anna, upload(anna, *choices(3)), model=name)


@given(st.lists(st.binary(max_size=20)))
def test_base64_is_the_same_however_the_pieces_are_cut(pieces):
    assert b"".join(in_base64(iter(pieces))) == base64.b64encode(b"".join(pieces))
