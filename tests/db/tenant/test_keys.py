"""Keys: random, stored hashed, revocable; workers: fresh by the database's clock."""

import os
import pwd
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from db import workers
from db.tables import ApiKey, Audit, Worker
from db.tenant import keys
from db.tenant.keys import Known
from tests.db import sent
from tests.db.inserted import a_tenant, a_worker
from tests.waiting import HANG


def test_a_key_is_its_tenants_until_it_is_revoked(session):
    anna = keys.create(session, "anna")
    row, secret = keys.create_key(session, anna.id)
    other, second = keys.create_key(session, anna.id)
    holder = keys.Holder(anna.id, "anna", 1.0)
    assert secret.startswith("sk-onward-")
    assert len(secret) == len("sk-onward-") + 43
    assert keys.authenticate(session, secret) == Known(row.id, "tenant", holder, keys.WHOLE)
    assert keys.revoke_key(session, row.id)
    assert not keys.revoke_key(session, row.id)
    assert keys.authenticate(session, secret) is None
    assert keys.authenticate(session, second) == Known(other.id, "tenant", holder, keys.WHOLE)


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
    assert workers.served(session, HANG) == {("m", False)}
    session.execute(update(Worker).values(heartbeat_at=text("now() - interval '11 seconds'")))
    assert not workers.serving(session, "m")
    assert workers.beat(session, worker)
    assert workers.serving(session, "m", HANG)
    assert session.get_one(Worker, worker, populate_existing=True).capacity == 16
    workers.leave(session, worker)
    assert not workers.serving(session, "m", HANG)
    assert not workers.beat(session, "wrk_nobody")


def expire(session, key_id):
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=func.clock_timestamp()))


def test_a_key_opens_until_its_end(session):
    row, secret = keys.create_key(session, a_tenant(session), lasts=timedelta(days=1))
    assert row.expires_at - row.created_at == timedelta(days=1)
    assert keys.authenticate(session, secret).key == row.id
    expire(session, row.id)
    assert keys.authenticate(session, secret) is None


def test_a_rotated_key_opens_for_its_grace_and_the_new_one_is_of_its_kind(session):
    tenant = a_tenant(session)
    old, first = keys.create_key(session, tenant, scope="read", name="ci", lasts=timedelta(days=30))
    new, second = keys.rotate_key(session, old.id, timedelta(hours=24))
    assert (new.tenant_id, new.scope, new.name) == (tenant, "read", "ci")
    assert new.expires_at - new.created_at == timedelta(days=30)
    left = session.scalar(select(ApiKey.expires_at - func.clock_timestamp()).where(ApiKey.id == old.id))
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    assert {keys.authenticate(session, s).key for s in (first, second)} == {old.id, new.id}
    expire(session, old.id)
    assert keys.authenticate(session, first) is None
    assert keys.authenticate(session, second).scope == "read"


def test_a_grace_lengthens_no_key_and_none_of_it_ends_the_old_one_at_once(session):
    soon, _ = keys.create_key(session, a_tenant(session), lasts=timedelta(minutes=1))
    ends = soon.expires_at
    keys.rotate_key(session, soon.id, timedelta(days=1))
    assert session.get_one(ApiKey, soon.id, populate_existing=True).expires_at == ends
    endless, secret = keys.create_key(session, a_tenant(session))
    new, _ = keys.rotate_key(session, endless.id, timedelta())
    assert new.expires_at is None
    assert keys.authenticate(session, secret) is None


def test_only_a_live_key_is_rotated(session):
    key, _ = keys.create_key(session, a_tenant(session))
    assert keys.revoke_key(session, key.id)
    assert keys.rotate_key(session, key.id, timedelta()) is None
    assert keys.rotate_key(session, "key_none", timedelta()) is None


@pytest.mark.parametrize("scope, has_tenant", [("operator", True), ("tenant", False), ("read", False), ("root", True)])
def test_a_scope_without_its_tenant_is_refused_by_the_database(session, scope, has_tenant):
    tenant = a_tenant(session) if has_tenant else None
    with pytest.raises(IntegrityError, match="ck_api_keys_"):
        keys.create_key(session, tenant, scope=scope)


def test_every_change_of_a_key_is_laid_to_who_runs_the_process(session):
    tenant = a_tenant(session)
    key, secret = keys.create_key(session, tenant)
    new, second = keys.rotate_key(session, key.id, timedelta())
    keys.revoke_key(session, new.id)
    session.flush()
    found = session.scalars(select(Audit).where(Audit.tenant_id == tenant).order_by(Audit.at, Audit.id)).all()
    assert [(e.action, e.object) for e in found] == [
        ("tenant.create", tenant), ("key.create", key.id), ("key.rotate", key.id), ("key.revoke", new.id),
    ]  # fmt: skip
    assert found[2].data["to"] == new.id
    user = pwd.getpwuid(os.getuid()).pw_name
    assert {(e.actor, e.request) for e in found} == {(f"operator:{user}", None)}
    dump = session.execute(text("SELECT string_agg(a::text, ' ') FROM audit a")).scalar_one()
    assert not [s for s in (secret, second, *(s.encode().hex() for s in (secret, second))) if s in dump]


@pytest.mark.parametrize("rights, scope, may", [
    (None, "tenant", {"train", "serve", "read"}),
    ({"serve"}, "read", {"serve"}),
    ({"train"}, "tenant", {"train", "read"}),
    ({"serve", "read"}, "read", {"serve", "read"}),
    ({"train", "serve", "read"}, "tenant", {"train", "serve", "read"}),
])  # fmt: skip
def test_what_a_key_may_and_what_an_older_release_takes_it_for(session, rights, scope, may):
    row, secret = keys.create_key(session, a_tenant(session), rights=rights)
    assert (row.scope, row.scopes) == (scope, sorted(rights) if rights else None)
    assert keys.authenticate(session, secret).rights == may
    new, second = keys.rotate_key(session, row.id, timedelta(hours=1))
    assert new.scopes == row.scopes
    assert keys.authenticate(session, second).rights == may


def test_keys_without_rights_keep_what_their_scope_says(session):
    _, reader = keys.create_key(session, a_tenant(session), scope="read")
    _, operator = keys.create_key(session, None, scope="operator")
    assert keys.authenticate(session, reader).rights == {"read"}
    assert keys.authenticate(session, operator).rights == set()


@pytest.mark.parametrize("rights", [{"root"}, set()])
def test_rights_that_there_are_not_are_refused_by_the_database(session, rights):
    with pytest.raises(IntegrityError, match="ck_api_keys_scopes"):
        keys.create_key(session, a_tenant(session), rights=rights)


def serving(session, model, **given):
    return workers.servers(sent.rows(session, workers.serve().with_(**given)), model)


def test_who_serves_is_found_while_it_beats_and_says_so(session):
    worker = workers.register(session, model="m", host="h", pid=1)
    about = {"url": "http://10.0.0.1:9200", "held": [], "queued_tokens": 0, "tools": False, "answer": True}
    assert workers.beat(session, worker, serving=about)
    assert serving(session, "m", fresh=HANG) == [], "it is not ready yet"
    workers.beat(session, worker, state="ready")
    assert serving(session, "m", fresh=HANG) == [workers.Server(worker, about)]
    assert serving(session, "other", fresh=HANG) == []
    workers.beat(session, worker, serving=about | {"queued_tokens": 7})
    assert [found.serving["queued_tokens"] for found in serving(session, "m", fresh=HANG)] == [7]
    session.execute(update(Worker).values(heartbeat_at=text("now() - interval '11 seconds'")))
    assert serving(session, "m") == []
    workers.beat(session, worker, serving={})
    assert serving(session, "m", fresh=HANG) == []
    workers.beat(session, worker, serving=about)
    workers.leave(session, worker)
    assert session.get_one(Worker, worker, populate_existing=True).serving is None
