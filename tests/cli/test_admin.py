"""The operator's commands against the real database."""

from sqlalchemy import make_url, text

from db.security import API, WORKER
from db.session import make_engine
from db.tenant import keys
from migrations.run import head
from tests.cli.conftest import complaint, read


def test_a_tenant_gets_a_key_that_works_until_it_is_revoked(shell, url, monkeypatch):
    tenant = read(shell("tenants", "create", "carla", "--weight", "2", "--quota", "1000", "--json"))
    assert (tenant["weight"], tenant["token_quota"]) == (2.0, 1000)
    assert "carla" in shell("tenants", "list").stdout
    key = read(shell("keys", "create", "carla", "--json"))
    monkeypatch.setenv("ONWARD_BASE_URL", url)
    monkeypatch.setenv("ONWARD_API_KEY", key["key"])
    assert read(shell("files", "list", "--json")) == []
    assert key["key"] not in shell("keys", "list", "carla").stdout
    assert "live" in shell("keys", "list", "carla").stdout
    shell("keys", "revoke", key["id"])
    assert "the key was refused" in complaint(shell("files", "list", ok=False))
    assert read(shell("keys", "list", "carla", "--json"))[0]["revoked_at"]
    assert key["id"] in complaint(shell("keys", "revoke", key["id"], ok=False))


def test_a_tenants_share_and_limits_are_changed_and_lifted(shell, factory):
    made = read(shell("tenants", "create", "emil", "--max-running", "2", "--daily-tokens", "1000", "--json"))
    assert (made["max_running"], made["daily_tokens"]) == (2, 1000)
    changed = read(shell("tenants", "set", "emil", "--weight", "4", "--max-jobs", "7", "--max-running", "3", "--json"))
    assert changed == made | {"weight": 4.0, "max_jobs": 7, "max_running": 3}
    lifted = read(shell("tenants", "set", made["id"], "--unlimited", "daily-tokens", "--json"))
    assert lifted == changed | {"daily_tokens": None}
    with factory.begin() as session:
        entries = session.execute(text("SELECT data FROM audit WHERE action = 'tenant.change' ORDER BY at")).scalars()
        assert list(entries) == [{"weight": 4.0, "max_jobs": 7, "max_running": 3}, {"daily_tokens": None}]
    assert "weight" in complaint(shell("tenants", "set", "emil", "--weight", "0", ok=False))
    assert "max-running" in complaint(shell("tenants", "set", "emil", "--unlimited", "weight", ok=False))
    assert "no tenant" in complaint(shell("tenants", "set", "nobody", "--weight", "1", ok=False))


def test_a_key_alone_is_printed_for_scripts(shell, factory):
    shell("tenants", "create", "dora")
    secret = shell("keys", "create", "dora").stdout.strip()
    with factory.begin() as session:
        known = keys.authenticate(session, secret)
    assert known is not None
    assert known.tenant.name == "dora"


def test_a_taken_name_and_an_impossible_weight_are_told(shell):
    shell("tenants", "create", "eve")
    assert "there is a tenant 'eve' already" in complaint(shell("tenants", "create", "eve", ok=False))
    assert "ck_tenants_weight" in complaint(shell("tenants", "create", "fay", "--weight", "0", ok=False))


def test_an_unknown_tenant(shell):
    assert "there is no tenant 'nobody'" in complaint(shell("keys", "create", "nobody", ok=False))


def test_migrate_says_where_the_database_is(shell):
    assert read(shell("migrate", "--json"))["version"]


def test_an_unreachable_database_is_told_with_what_to_do(shell, monkeypatch):
    monkeypatch.setenv("ONWARD_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")
    assert "ONWARD_DATABASE_URL" in complaint(shell("tenants", "list", ok=False))


def test_a_tenants_storage_is_limited_and_freed_again(shell):
    assert read(shell("tenants", "create", "gil", "--max-bytes", "5000", "--json"))["max_bytes"] == 5000
    assert read(shell("tenants", "set", "gil", "--max-bytes", "12345", "--json"))["max_bytes"] == 12345
    assert read(shell("tenants", "set", "gil", "--json"))["max_bytes"] == 12345, "what is not given stays"
    assert "12.3k" in shell("tenants", "list").stdout
    assert read(shell("tenants", "set", "gil", "--unlimited", "max-bytes", "--json"))["max_bytes"] is None
    assert "there is no tenant 'who'" in complaint(shell("tenants", "set", "who", ok=False))


def test_migrate_gives_the_roles_their_passwords(shell, urls, monkeypatch):
    """Those they have: the tests beside this one use them."""
    for role, name in ((API, "API"), (WORKER, "WORKER")):
        monkeypatch.setenv(f"ONWARD_{name}_DATABASE_PASSWORD", urls.passwords[role] + "\n")
    assert read(shell("migrate", "--json"))["version"] == head()
    for url in (urls.api_url, urls.worker_url):
        engine = make_engine(url, pool_size=1)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_user")) == make_url(url).username
        engine.dispose()


def test_a_role_that_sees_one_tenant_at_a_time_is_no_operators(shell, urls, monkeypatch):
    """Instead of an empty list: `onward tenants list` in a container of the API."""
    monkeypatch.setenv("ONWARD_DATABASE_URL", urls.api_url)
    for words in (("tenants", "list"), ("tenants", "create", "x"), ("keys", "list", "x"), ("adapters", "verify", "x")):
        assert "it needs the role that owns the tables" in complaint(shell(*words, ok=False))


def test_the_doctor_works_in_the_name_of_the_api(shell, urls, monkeypatch):
    monkeypatch.setenv("ONWARD_DATABASE_URL", urls.api_url)
    found = {f["part"]: f for f in read(shell("doctor", "--json"))["findings"]}
    assert found["isolation"]["mark"] == "ok"
    assert "queue" in found
