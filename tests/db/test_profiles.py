"""Rows of profiles: every role that serves reads them, the owner of the tables alone writes, and none is changed."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import profiles, security
from db.contract.profiles import Profiled
from db.tables import Profile
from db.worker import journal
from db.worker.journal import NotWhole
from tests.db.inserted import a_job, a_tenant
from tests.profiled import made, sha256
from worker.runs.profiles import read
from worker.types import Layout, Module

LAYOUT = Layout(2, 4.0, (Module("q_proj", 8, 5),))
DATA = made("mask", LAYOUT)


@pytest.fixture(scope="module")
def kept(factory):
    found = read(DATA)
    with factory.begin() as session:
        profiles.add(session, found.of, found.told, DATA)
    return found.of


def test_whoever_serves_reads_and_nobody_but_the_owner_writes(kept, as_api, as_worker, factory):
    with factory.begin() as session:
        tenant = a_tenant(session)
    for sessions in (as_api, as_worker):
        with security.transaction(sessions, tenant) as session:
            assert profiles.named(session, kept.sha256) == kept
            assert profiles.content(session, kept.sha256) == DATA
        for statement in (
            "DELETE FROM profiles",
            "UPDATE profiles SET kind = 'basis'",
            "INSERT INTO profiles SELECT * FROM profiles",
        ):
            with (
                pytest.raises(DBAPIError, match="permission denied"),
                security.transaction(sessions, tenant) as session,
            ):
                session.execute(text(statement))


def test_a_row_is_named_by_its_bytes_and_tells_their_number(session):
    other = Profiled("0" * 64, "mask", "b", "l")
    for about in (other, Profiled(sha256(b"y"), "mask", "b", "l")):
        with pytest.raises(IntegrityError, match="named_by_its_bytes"), session.begin_nested():
            profiles.add(session, about, {}, b"x")
    with pytest.raises(IntegrityError, match="ck_profiles_kind"), session.begin_nested():
        profiles.add(session, Profiled(sha256(b"x"), "masks", "b", "l"), {}, b"x")
    assert profiles.named(session, "no hash \0") is None
    assert profiles.content(session, sha256(b"x")) is None


def test_a_history_has_the_profile_that_its_method_names(kept, session):
    job = a_job(session, a_tenant(session))
    method = {"name": "senszoq", "eps": 0.01, "learning_rate": 0.1, "profile": kept.sha256}
    job.spec = {**job.spec, "method": method}
    session.flush()
    assert journal.history(session, job.id).profile == DATA
    job.spec = {**job.spec, "method": {**method, "profile": "0" * 64}}
    session.flush()
    with pytest.raises(NotWhole, match="profile 0000"):
        journal.history(session, job.id)
    assert session.scalars(select(Profile.sha256)).all() == [kept.sha256]
