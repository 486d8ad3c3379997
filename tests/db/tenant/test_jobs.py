"""Creating and listing jobs: once per request, within quota, in order, and for their tenant only."""

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import func, select, text, update

from db import files
from db.contract.spec import JobSpec
from db.ids import UnknownCursor, new_id
from db.tables import Adapter, Event, Job
from db.tenant import adapters, jobs
from db.tenant.jobs import IdempotencyConflict, MissingFile
from db.tenant.quotas import QuotaExceeded
from tests.db.inserted import MODEL, a_file, a_job, a_spec, a_tenant, a_worker


def create(session, tenant, file, request_hash="h", key=None, is_retry=False, price=100, request=None):
    return jobs.create(
        tenant,
        session,
        spec=a_spec(file),
        request=request or {},
        request_hash=request_hash,
        price_tokens=price,
        idempotency_key=key,
        is_retry=is_retry,
    )


@pytest.fixture
def tenant(session):
    return a_tenant(session)


@pytest.fixture
def file(session, tenant):
    return a_file(session, tenant)


def test_a_job_keeps_its_spec_and_says_what_happened(session, tenant, file):
    job, created = create(session, tenant, file, request={"metadata": {"a": "b"}})
    session.refresh(job)
    assert created
    assert (job.state, job.step, job.total_steps, job.price_tokens) == ("queued", 0, 10, 100)
    assert JobSpec.model_validate(job.spec) == a_spec(file)
    found, more = jobs.events(tenant, session, job.id)
    assert [e.level for e in found] == ["warn", "info"]
    assert MODEL in found[0].message
    assert not more
    a_worker(session)
    served, _ = create(session, tenant, file)
    assert [e.level for e in jobs.events(tenant, session, served.id)[0]] == ["info"]


def test_a_key_makes_one_job(session, tenant, file):
    first, created = create(session, tenant, file, key="k")
    assert created
    assert create(session, tenant, file, key="k") == (first, False)
    with pytest.raises(IdempotencyConflict):
        create(session, tenant, file, request_hash="other", key="k")
    stranger = a_tenant(session)
    theirs, created = create(session, stranger, a_file(session, stranger), key="k")
    assert created
    assert theirs.id != first.id


def test_a_retry_without_a_key_is_the_same_request_for_ten_minutes(session, tenant, file):
    first, _ = create(session, tenant, file)
    assert create(session, tenant, file, is_retry=True) == (first, False)
    assert create(session, tenant, file, request_hash="other", is_retry=True)[1]
    assert create(session, tenant, file)[1], "no retry: the same body may be wanted twice"
    session.execute(update(Job).values(created_at=datetime.now(UTC) - timedelta(minutes=11)))
    assert create(session, tenant, file, is_retry=True)[1]


def test_posts_that_arrive_together_make_one_job(factory):
    with factory.begin() as session:
        tenant = a_tenant(session)
        file = a_file(session, tenant)
    barrier, made = Barrier(6), []

    def post() -> None:
        barrier.wait()
        with factory.begin() as session:
            made.append(create(session, tenant, file, key="k"))

    threads = [Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len({job.id for job, _ in made}) == 1
    assert sum(created for _, created in made) == 1


def test_the_token_quota_counts_prices_ahead_and_what_was_used(session):
    tenant = a_tenant(session, token_quota=250)
    first = a_job(session, tenant, price=100)
    a_job(session, tenant, price=100)
    with pytest.raises(QuotaExceeded) as refused:
        a_job(session, tenant, price=51)
    assert (refused.value.what, refused.value.limit, refused.value.used, refused.value.asked) == (
        "tokens", 250, 200, 51,
    )  # fmt: skip
    first.scored_tokens = 30
    session.flush()
    jobs.cancel(tenant, session, first.id)  # only its 30 tokens count from now on
    a_job(session, tenant, price=120)
    with pytest.raises(QuotaExceeded):
        a_job(session, tenant, price=1)


def test_the_number_of_unfinished_jobs_is_limited(session):
    tenant = a_tenant(session, max_jobs=2)
    first = a_job(session, tenant)
    jobs.pause(tenant, session, a_job(session, tenant).id)
    with pytest.raises(QuotaExceeded) as refused:
        a_job(session, tenant)
    assert refused.value.what == "jobs"
    jobs.cancel(tenant, session, first.id)
    a_job(session, tenant)


def test_files_must_be_the_tenants_and_there(session, tenant, file):
    theirs = a_file(session, a_tenant(session))
    files.delete(tenant, session, file)
    for missing in (file, theirs, "file-none"):
        with pytest.raises(MissingFile, match=missing):
            create(session, tenant, missing)
    assert session.scalar(select(func.count()).select_from(Job).where(Job.tenant_id == tenant)) == 0


def test_pages_join_up_newest_first(session, tenant, file):
    made = [create(session, tenant, file)[0] for _ in range(7)]
    start = datetime.now(UTC)
    for i, job in enumerate(made):
        job.created_at = start + timedelta(seconds=i // 2)  # some share an instant
    session.flush()
    seen, more, after = [], True, None
    while more:
        found, more = jobs.page(tenant, session, after=after, limit=3)
        seen += [j.id for j in found]
        after = seen[-1]
    assert seen == [j.id for j in sorted(made, key=lambda j: (j.created_at, j.id), reverse=True)]


def test_metadata_keeps_jobs_that_have_all_pairs(session, tenant, file):
    both, _ = create(session, tenant, file, request={"metadata": {"a": "1", "b": "2"}})
    create(session, tenant, file, request={"metadata": {"a": "1"}})
    create(session, tenant, file, request={"metadata": None})
    create(session, tenant, file)
    assert jobs.page(tenant, session, metadata={"a": "1", "b": "2"}) == ([both], False)
    assert len(jobs.page(tenant, session, metadata={"a": "1"})[0]) == 2
    assert jobs.page(tenant, session, metadata={"a": "2"}) == ([], False)


def test_events_page_by_number(session, tenant):
    job = a_job(session, tenant)
    for _ in range(3):
        jobs.pause(tenant, session, job.id)
        jobs.resume(tenant, session, job.id)
    everything = [e.number for e in jobs.events(tenant, session, job.id, limit=100)[0]]
    assert everything == [*range(len(everything), 0, -1)]
    first, more = jobs.events(tenant, session, job.id, limit=4)
    rest, end = jobs.events(tenant, session, job.id, after=first[-1].number, limit=100)
    assert (more, end) == (True, False)
    assert [e.number for e in first + rest] == everything
    assert session.scalar(select(func.count()).select_from(Event).where(Event.job_id == job.id)) == len(everything)


def test_events_are_numbered_whoever_writes_them_and_however_many_at_once(factory):
    with factory.begin() as session:
        tenant = a_tenant(session)
        one, other = a_job(session, tenant).id, a_job(session, tenant).id
    barrier = Barrier(4)
    rows = "INSERT INTO events (job_id, tenant_id, message) SELECT :job, :tenant, n FROM generate_series(1, 3) n"

    def write(job_id: str) -> None:  # as the release before does: without a number, and here without a lock
        barrier.wait()
        for _ in range(10):
            with factory.begin() as session:
                session.execute(text(rows), {"job": job_id, "tenant": tenant})

    threads = [Thread(target=write, args=(job_id,)) for job_id in (one, other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with factory.begin() as session:
        for job_id in (one, other):
            numbers = [e.number for e in jobs.events(tenant, session, job_id, limit=100)[0]]
            assert numbers == [*range(2 + 60, 0, -1)]


def test_a_stranger_finds_nothing(session, tenant):
    stranger = a_tenant(session)
    job = a_job(session, tenant)
    result = files.create(
        tenant, session, filename="r", purpose="fine-tune-results", format=None, rows=0, chunks=[b"x"]
    )
    name = f"ft:tiny:{new_id('')}"
    row = Adapter(
        id=new_id("adpt-"), tenant_id=tenant, job_id=job.id, name=name, step=0, sha256="0" * 64, path="/", token=1,
        file_id=result.id,
    )  # fmt: skip
    session.add(row)
    session.flush()
    for find in (jobs.get, jobs.cancel, jobs.pause, jobs.resume, adapters.of_job):
        assert find(stranger, session, job.id) is None
    assert jobs.events(stranger, session, job.id) == ([], False)
    assert jobs.checkpoints(stranger, session, job.id) == ([], False)
    assert jobs.page(stranger, session) == ([], False)
    with pytest.raises(UnknownCursor):
        jobs.page(stranger, session, after=job.id)
    assert adapters.page(stranger, session) == ([], False)
    for wanted in (row.id, row.name):
        assert adapters.get(stranger, session, wanted) is None
        assert adapters.get(tenant, session, wanted) is row
    session.refresh(job)
    assert job.state == "queued"
