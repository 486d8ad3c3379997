"""Served tokens count once, are a tenant's own, and are held against what it may have."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db import security
from db.tables import Served, ServedDay, Tenant
from db.tenant import served
from db.tenant.served import Allowance, Answered
from tests.db import sent
from tests.db.inserted import MODEL, a_tenant


def answered(request, prompt=10, cached=4, completion=3):
    return Answered(request, MODEL, prompt, cached, completion)


def test_a_request_that_is_written_twice_counts_once(session):
    tenant = a_tenant(session)
    assert served.commit(tenant, session, [answered("a"), answered("b", 5, 0, 1)]) == 19
    assert served.commit(tenant, session, [answered("b", 5, 0, 1), answered("c", 1, 0, 1)]) == 2
    assert served.commit(tenant, session, [answered("a")]) == 0
    assert served.commit(tenant, session, []) == 0
    day = session.execute(select(ServedDay.prompt, ServedDay.cached, ServedDay.completion)).one()
    assert tuple(day) == (16, 4, 5)
    whole = session.scalar(select(Tenant.served_tokens).where(Tenant.id == tenant))
    assert whole == sent.served_today(tenant, session) == 21


def test_two_tenants_may_have_requests_of_one_id(session):
    one, other = a_tenant(session), a_tenant(session)
    assert served.commit(one, session, [answered("a")]) == served.commit(other, session, [answered("a")]) == 13


def left(session, tenant):
    return served.allowance(sent.rows(session, served.left(tenant)))


def test_what_is_left_of_a_quota_and_of_a_day(session):
    assert left(session, a_tenant(session)) == Allowance(None, None)
    tenant = a_tenant(session, serve_quota=30, daily_serve_tokens=20)
    assert left(session, tenant) == Allowance(30, 20)
    served.commit(tenant, session, [answered("a")])
    assert left(session, tenant) == Allowance(17, 7)
    served.commit(tenant, session, [answered("b", 100, 0, 0)])
    assert left(session, tenant) == Allowance(0, 0)


def test_the_api_writes_it_under_its_role_in_the_tenants_name_only(factory, as_api):
    with factory.begin() as session:
        tenant, other = a_tenant(session), a_tenant(session)
    with security.transaction(as_api, tenant) as session:
        assert served.commit(tenant, session, [answered("x")]) == 13
        assert served.commit(tenant, session, [answered("x"), answered("y")]) == 13
        assert sent.served_today(tenant, session) == 26
    with security.transaction(as_api, other) as session:
        assert session.scalar(select(func.count()).select_from(Served)) == 0


def test_limits_below_nothing_are_refused_by_the_database(session):
    with pytest.raises(IntegrityError, match="ck_tenants_serving"):
        a_tenant(session, serve_quota=-1)
