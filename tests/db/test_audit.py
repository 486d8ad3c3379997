"""The audit log: told of one tenant at a time, kept for as long as the setting says."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from db import audit
from db.ids import UnknownCursor, new_id
from db.tables import Adapter, Audit
from db.worker import journal
from db.worker.journal import Published
from tests.db.inserted import a_claim, a_job, a_tenant


def told(session, tenant, count=1):
    """Objects of `count` entries, oldest first."""
    ids = [new_id("job-") for _ in range(count)]
    for name in ids:
        audit.write(session, tenant, "job.cancel", name)
        session.flush()
    return ids


def subjects(found):
    entries, more = found
    return [entry.object for entry in entries], more


def test_pages_are_of_one_tenant_and_newest_first(session):
    anna, ben = a_tenant(session), a_tenant(session)
    mine = told(session, anna, 3)
    told(session, ben)
    newest, more = audit.page(anna, session, limit=2)
    assert subjects((newest, more)) == (mine[:0:-1], True)
    assert subjects(audit.page(anna, session, after=newest[-1].id, limit=2)) == ([mine[0], anna], False)
    for who, after in ((ben, newest[-1].id), (anna, "audit-none")):
        with pytest.raises(UnknownCursor):
            audit.page(who, session, after=after)


def test_entries_older_than_the_setting_are_deleted_oldest_first_and_a_few_at_a_time(session, monkeypatch):
    tenant = a_tenant(session)
    old, kept = told(session, tenant, 3), told(session, tenant, 2)
    for days, name in zip((12, 11, 10), old, strict=True):
        session.execute(update(Audit).where(Audit.object == name).values(at=func.now() - timedelta(days=days)))
    left = select(Audit.object).where(Audit.object.in_(old + kept)).order_by(Audit.at)
    assert audit.prune(session, 0) == 0
    assert session.scalars(left).all() == old + kept
    monkeypatch.setattr(audit, "PRUNED_AT_ONCE", 2)
    assert audit.prune(session, 9.5) == 2
    assert session.scalars(left).all() == [old[2], *kept]
    assert [audit.prune(session, 9.5) for _ in range(2)] == [1, 0]
    assert session.scalars(left).all() == kept


def test_who_acts_may_become_known_in_another_thread_of_the_request():
    import contextvars

    with audit.acting("nobody", "req_1"):
        inside = contextvars.copy_context()
        thread = threading.Thread(target=inside.run, args=(lambda: setattr(audit.current(), "actor", "key_1"),))
        thread.start()
        thread.join()
        assert audit.current() == audit.Acting("key_1", "req_1")
    assert audit.current().actor.startswith("operator:")


@pytest.mark.parametrize("ends", ["finish", "fail"])
def test_an_adapter_is_laid_to_the_worker_that_published_it(session, ends):
    tenant = a_tenant(session)
    job = a_job(session, tenant, steps=1)
    claim = a_claim(session, job)
    adapter = Published(name=new_id("ft:"), step=1, sha256="a" * 64, path="/a/b", tar=b"tar")
    if ends == "finish":
        journal.flush(session, claim, [journal.Step(step=0, losses=(1.0, 2.0), tokens=3)])
        journal.finish(session, claim, adapter)
    else:
        journal.fail(session, claim, "not_finite", "why", adapter)
    made = session.scalars(select(Adapter).where(Adapter.job_id == job.id)).one()
    entry = session.scalars(select(Audit).where(Audit.object == made.id)).one()
    assert (entry.tenant_id, entry.actor, entry.action) == (tenant, claim.worker_id, "adapter.create")
    assert entry.data == {"job": job.id, "step": 1, "sha256": "a" * 64}
