"""Keys: random, stored hashed, revocable; workers: fresh by the database's clock."""

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError

from db import workers
from db.tables import ApiKey, Worker
from db.tenant import keys
from db.tenant.keys import Known
from tests.db.inserted import a_tenant, a_worker
from tests.waiting import HANG


def test_a_key_is_its_tenants_until_it_is_revoked(session):
    anna = keys.create(session, "anna")
    row, secret = keys.create_key(session, anna.id)
    other, second = keys.create_key(session, anna.id)
    assert secret.startswith("sk-onward-")
    assert len(secret) == len("sk-onward-") + 43
    assert keys.authenticate(session, secret) == Known(row.id, "tenant", anna)
    assert keys.revoke_key(session, row.id)
    assert not keys.revoke_key(session, row.id)
    assert keys.authenticate(session, secret) is None
    assert keys.authenticate(session, second) == Known(other.id, "tenant", anna)


@pytest.mark.parametrize("wrong", ["", "sk-onward-", "sk-onward-" + "a" * 43, "\ud800", "x" * 100_000, "\0"])
def test_what_is_no_key_is_nobodys(session, wrong):
    keys.create_key(session, a_tenant(session))
    assert keys.authenticate(session, wrong) is None


def test_the_secret_is_not_in_the_database(session):
    _, secret = keys.create_key(session, a_tenant(session))
    dump = session.execute(text("SELECT string_agg(k::text, ' ') FROM api_keys k")).scalar_one()
    assert secret not in dump
    assert secret.encode().hex() not in dump
    assert session.scalars(select(ApiKey.hint)).one() == secret[:14]


def test_names_are_unique(session):
    keys.create(session, "anna")
    assert keys.find(session, "anna").name == "anna"
    assert keys.find(session, "ben") is None
    with pytest.raises(IntegrityError):
        keys.create(session, "anna")


def test_a_worker_serves_while_it_beats(session):
    worker = a_worker(session, "m")
    assert workers.serving(session, "m", HANG)
    assert not workers.serving(session, "other", HANG)
    assert workers.beat(session, worker, state="ready", capacity=16)
    assert workers.served_models(session, HANG) == {"m"}
    session.execute(update(Worker).values(heartbeat_at=text("now() - interval '11 seconds'")))
    assert not workers.serving(session, "m")
    assert workers.beat(session, worker)
    assert workers.serving(session, "m", HANG)
    assert session.get_one(Worker, worker, populate_existing=True).capacity == 16
    workers.leave(session, worker)
    assert not workers.serving(session, "m", HANG)
    assert not workers.beat(session, "wrk_nobody")
