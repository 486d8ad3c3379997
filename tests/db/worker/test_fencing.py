"""Every write of a worker, under every claim that gives no right: refused, and nothing changes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from db.tables import Base, Job, Lease
from db.tenant import jobs
from db.worker import journal, leases
from db.worker.journal import Evaluated, Published, Step
from db.worker.leases import Claim, LeaseLost
from tests.db.inserted import a_claim, a_job, a_tenant

PUBLISHED = Published(name="ft:tiny:x", step=10, sha256="a" * 64, path="/a", tar=b"tar")
STEPS = [Step(i, [0.5, 0.25], 3) for i in range(10)]

WRITES: dict[str, Callable[[Session, Claim], object]] = {
    "flush": lambda s, c: journal.flush(s, c, STEPS),
    "flush evaluation": lambda s, c: journal.flush(s, c, [], [Evaluated(0, 1.0, 0.5, 4, 9)], (0, 1.0)),
    "flush nothing": lambda s, c: journal.flush(s, c, []),
    "fail": lambda s, c: journal.fail(s, c, "non_finite", "loss is nan"),
    "fail with best": lambda s, c: journal.fail(s, c, "non_finite", "loss is nan", PUBLISHED),
    "finish": lambda s, c: journal.finish(s, c, PUBLISHED),
    "release": leases.release,
    "read_file": lambda s, c: leases.read_file(s, c, c.spec.training_file),
}


def expired(session: Session, claim: Claim) -> Claim:
    """Nobody else has claimed it; that does not matter."""
    session.execute(update(Lease).values(expires_at=text("clock_timestamp()")))
    return claim


def taken_over(session: Session, claim: Claim) -> Claim:
    expired(session, claim)
    a_claim(session, session.get_one(Job, claim.job_id))
    return claim


def taken_over_by_itself(session: Session, claim: Claim) -> Claim:
    expired(session, claim)
    a_claim(session, session.get_one(Job, claim.job_id), claim.worker_id)
    return claim


def released(session: Session, claim: Claim) -> Claim:
    leases.release(session, claim)
    return claim


def cancelled(session: Session, claim: Claim) -> Claim:
    jobs.cancel(claim.tenant_id, session, claim.job_id)
    leases.release(session, claim)
    return claim


def paused_and_resumed(session: Session, claim: Claim) -> Claim:
    jobs.pause(claim.tenant_id, session, claim.job_id)
    leases.release(session, claim)
    jobs.resume(claim.tenant_id, session, claim.job_id)
    return claim


def of_another_worker(session: Session, claim: Claim) -> Claim:
    return replace(claim, worker_id="wrk_other")


def of_another_job(session: Session, claim: Claim) -> Claim:
    return replace(claim, job_id=a_job(session, claim.tenant_id).id)


def with_a_later_token(session: Session, claim: Claim) -> Claim:
    return replace(claim, token=claim.token + 1)


WITHOUT_RIGHT = [
    expired, taken_over, taken_over_by_itself, released, cancelled, paused_and_resumed,
    of_another_worker, of_another_job, with_a_later_token,
]  # fmt: skip


def everything(session: Session) -> dict[str, list[str]]:
    return {table: sorted(session.scalars(text(f"SELECT t::text FROM {table} t"))) for table in Base.metadata.tables}


@pytest.mark.parametrize("spoil", WITHOUT_RIGHT)
@pytest.mark.parametrize("write", WRITES)
def test_no_right_no_write(session, write, spoil):
    job = a_job(session, a_tenant(session))
    claim = a_claim(session, job)
    if write == "finish":
        journal.flush(session, claim, STEPS)
    claim = spoil(session, claim)
    session.flush()
    before = everything(session)
    with pytest.raises(LeaseLost):
        WRITES[write](session, claim)
    session.flush()
    assert everything(session) == before


@pytest.mark.parametrize("spoil", [expired, of_another_worker, of_another_job, with_a_later_token])
@pytest.mark.parametrize("wish", [jobs.pause, jobs.cancel])
def test_a_wish_is_obeyed_by_the_holder_only(session, wish, spoil):
    claim = a_claim(session, a_job(session, a_tenant(session)))
    wish(claim.tenant_id, session, claim.job_id)
    claim = spoil(session, claim)
    session.flush()
    before = everything(session)
    with pytest.raises(LeaseLost):
        leases.release(session, claim)
    session.flush()
    assert everything(session) == before


@pytest.mark.parametrize("write", WRITES)
def test_with_the_right_each_of_them_works(session, write):
    claim = a_claim(session, a_job(session, a_tenant(session)))
    if write == "finish":
        journal.flush(session, claim, STEPS)
    WRITES[write](session, claim)


def test_a_claim_serves_its_own_job_only_when_two_are_held(session):
    """Two live leases of one worker: neither's token writes the other's job."""
    tenant = a_tenant(session)
    first = a_claim(session, a_job(session, tenant))
    second = a_claim(session, a_job(session, tenant), first.worker_id)
    journal.flush(session, second, STEPS[:1])
    assert journal.read(session, first) == []
    with pytest.raises(PermissionError):
        leases.read_file(session, first, second.spec.training_file)
