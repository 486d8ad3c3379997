"""Files: chunked, hashed, paged, hidden at once, kept for the jobs that need them, closed to strangers."""

import hashlib

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from db import files
from db.ids import UnknownCursor
from db.tables import FileChunk
from db.tenant import jobs
from db.worker import leases
from tests.db.inserted import a_claim, a_file, a_job, a_tenant

MIB = 2**20


def test_bytes_come_back_as_they_went_in(session):
    tenant = a_tenant(session)
    data = [b"a" * 10, b"", bytes(range(256)) * (MIB // 100), b"z"]
    file = files.create(tenant, session, filename="f", purpose="fine-tune", format="chat", rows=3, chunks=iter(data))
    whole = b"".join(data)
    assert (file.bytes, file.rows, file.sha256) == (len(whole), 3, hashlib.sha256(whole).hexdigest())
    pieces = list(files.content(tenant, session, file.id))
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) <= MIB
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def test_an_empty_file_is_refused(session):
    with pytest.raises(ValueError, match="empty"):
        a_file(session, a_tenant(session), b"")


def test_a_chunk_without_its_file_cannot_be_committed(session):
    session.add(FileChunk(file_id="file-none", number=0, tenant_id=a_tenant(session), data=b"x"))
    session.flush()
    with pytest.raises(IntegrityError):
        session.commit()


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_join_up_even_across_one_instant_and_a_deletion(session, order):
    tenant = a_tenant(session)
    made = {a_file(session, tenant) for _ in range(7)}  # one transaction: all at the same instant
    a_file(session, a_tenant(session))
    seen: list[str] = []
    more, after = True, None
    while more:
        found, more = files.page(tenant, session, after=after, limit=3, order=order)
        seen += [f.id for f in found]
        after = seen[-1]
        files.delete(tenant, session, after)
    assert len(seen) == 7
    assert set(seen) == made


def test_deleted_is_gone_at_once_but_a_job_still_reads_it(session):
    tenant = a_tenant(session)
    data = b"0123456789" * 1000
    file = a_file(session, tenant, data)
    job = a_job(session, tenant, file)
    claim = a_claim(session, job)
    assert files.delete(tenant, session, file)
    assert not files.delete(tenant, session, file)
    assert files.get(tenant, session, file) is None
    assert files.content(tenant, session, file) is None
    assert files.page(tenant, session) == ([], False)
    assert leases.read_file(session, claim, file) == data
    leases.release(session, claim)
    jobs.cancel(tenant, session, job.id)
    assert session.scalar(select(func.count()).select_from(FileChunk).where(FileChunk.file_id == file)) == 0


def test_a_stranger_finds_nothing(session):
    tenant, stranger = a_tenant(session), a_tenant(session)
    file = a_file(session, tenant)
    assert files.get(stranger, session, file) is None
    assert files.content(stranger, session, file) is None
    assert not files.delete(stranger, session, file)
    assert files.page(stranger, session) == ([], False)
    with pytest.raises(UnknownCursor):
        files.page(stranger, session, after=file)
    assert files.get(tenant, session, file) is not None


def test_no_job_may_read_a_file_that_is_not_its_own(session):
    tenant, other = a_tenant(session), a_tenant(session)
    claim = a_claim(session, a_job(session, tenant))
    for file in (a_file(session, tenant), a_file(session, other)):
        with pytest.raises(PermissionError):
            leases.read_file(session, claim, file)
