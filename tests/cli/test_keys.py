"""Keys at the command line: shown once, listed with what they may and when they end, rotated; and the audit log."""

import os
import pwd

import pytest
from sqlalchemy import update

from db.tables import Audit
from db.tenant import keys
from tests.cli.conftest import complaint, read

USER = f"operator:{pwd.getpwuid(os.getuid()).pw_name}"


def made(shell, *words):
    return read(shell("keys", "create", *words, "--json"))


def listed(shell, *words):
    return {key["id"]: key for key in read(shell("keys", "list", *words, "--json"))}


def opens(factory, secret):
    with factory.begin() as session:
        return keys.authenticate(session, secret)


def test_a_list_shows_scope_end_and_last_use_and_no_key(shell, factory):
    shell("tenants", "create", "gina")
    reader = made(shell, "gina", "--scope", "read", "--name", "[red]ci", "--expires", "90d")
    whole = made(shell, "gina")
    with factory.begin() as session:
        keys.mark_used(session, whole["id"])
    found = listed(shell, "gina")
    assert (found[reader["id"]]["scope"], found[reader["id"]]["name"]) == ("read", "[red]ci")
    assert found[reader["id"]]["expires_at"]
    assert not found[reader["id"]]["last_used_at"]
    assert (found[whole["id"]]["scope"], found[whole["id"]]["expires_at"]) == ("tenant", None)
    assert found[whole["id"]]["last_used_at"]
    table = shell("keys", "list", "gina").stdout
    assert "[red]ci" in table
    assert not [column for column in ("scope", "expires", "last used", "state") if column not in table]
    assert not [key for key in (reader, whole) if key["key"] in table]


def test_an_operators_key_has_no_tenant(shell, factory):
    key = made(shell, "--scope", "operator")
    known = opens(factory, key["key"])
    assert (known.scope, known.tenant) == ("operator", None)
    assert listed(shell)[key["id"]]["tenant_id"] is None
    assert "operator" in shell("keys", "list").stdout
    shell("tenants", "create", "hugo")
    for words in (["hugo", "--scope", "operator"], [], ["--scope", "read"]):
        assert "of a tenant, or of scope operator" in complaint(shell("keys", "create", *words, ok=False))


def test_a_rotated_key_goes_on_for_its_grace_unless_told_otherwise(shell, factory):
    shell("tenants", "create", "ines")
    first = made(shell, "ines")
    second = read(shell("keys", "rotate", first["id"], "--json"))
    assert listed(shell, "ines")[first["id"]]["expires_at"]
    assert opens(factory, first["key"])
    third = shell("keys", "rotate", second["id"], "--grace", "0").stdout.strip()
    assert opens(factory, second["key"]) is None
    assert opens(factory, third).tenant.name == "ines"
    assert "expired" in shell("keys", "list", "ines").stdout
    assert "no live key" in complaint(shell("keys", "rotate", second["id"], ok=False))


@pytest.mark.parametrize("said", ["soon", "1y", "-1d", "999999999d", "1.5h", ""])
def test_what_is_no_time_is_told(shell, said):
    assert "is no time" in complaint(shell("keys", "rotate", "key_x", f"--grace={said}", ok=False))


def test_the_audit_log_tells_who_changed_what_and_can_be_asked_for_less(shell, factory):
    tenant = read(shell("tenants", "create", "[bold]jan", "--json"))
    key = made(shell, tenant["id"])
    shell("keys", "revoke", key["id"])
    entries = read(shell("audit", "--tenant", tenant["id"], "--json"))
    assert [(e["action"], e["object"]) for e in entries] == [
        ("key.revoke", key["id"]), ("key.create", key["id"]), ("tenant.create", tenant["id"]),
    ]  # fmt: skip
    assert {e["actor"] for e in entries} == {USER}
    asked = {
        ("--action", "key"): 2, ("--action", "key.create"): 1, ("--action", "ke"): 0, ("--object", key["id"]): 2,
        ("--actor", "key_none"): 0, ("--request", "req_none"): 0, ("--since", "1h"): 3, ("--limit", "1"): 1,
    }  # fmt: skip
    for words, count in asked.items():
        assert len(read(shell("audit", "--tenant", tenant["id"], *words, "--json"))) == count, words
    table = shell("audit", "--tenant", tenant["id"]).stdout
    assert "[bold]jan" in table
    assert key["key"] not in table


def test_pruning_goes_by_the_setting(shell, factory, monkeypatch):
    tenant = read(shell("tenants", "create", "kim", "--json"))["id"]
    with factory.begin() as session:
        session.execute(update(Audit).where(Audit.object == tenant).values(at="2020-01-01T00:00:00Z"))
    assert read(shell("audit", "--prune", "--json")) == {"deleted": 0}
    monkeypatch.setenv("ONWARD_AUDIT_DAYS", "30")
    assert read(shell("audit", "--prune", "--json")) == {"deleted": 1}
    assert read(shell("audit", "--tenant", tenant, "--json")) == []
