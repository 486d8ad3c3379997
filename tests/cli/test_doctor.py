"""The doctor on the real database and broker, healthy and with one part wrong at a time."""

import pytest
from sqlalchemy import delete, text, update

from cli.doctor import examine
from db import workers
from db.settings import Settings
from db.tables import Worker
from tests.cli.conftest import read
from tests.db.inserted import a_job, a_tenant
from tests.waiting import HANG
from worker.engine import processor


@pytest.fixture
def at(database_url, redis_url, base_folder, tmp_path):
    return Settings(database_url=database_url, redis_url=redis_url, models={"tiny": str(base_folder)}, home=tmp_path)


def goes_on(session, worker):
    beats_until = text(f"clock_timestamp() + interval '{HANG} seconds'")
    session.execute(update(Worker).where(Worker.id == worker).values(heartbeat_at=beats_until))


@pytest.fixture
def ready(factory):
    """A worker that goes on beating, as its process would have signed on."""
    with factory.begin() as session:
        worker = workers.register(session, model="tiny", host="here", pid=1)
        about = {"onward": "0.1.0", "vllm": "0.32.0", "dtype": "float32", "scorer": "vllm", "max_difference": 5e-6}
        about["processor"] = "AVX9, oneDNN packs float32"
        workers.beat(session, worker, state="ready", capacity=64, about=about)
        goes_on(session, worker)
    yield worker
    with factory.begin() as session:
        session.execute(delete(Worker).where(Worker.id == worker))


def found(at, part):
    return [(f.mark, f.found, f.todo) for f in examine(at) if f.part == part]


def test_a_healthy_installation(shell, ready):
    report = read(shell("doctor", "--json"))
    assert report["healthy"]
    assert {f["part"] for f in report["findings"]} == {
        "models", "store", "files", "processor", "broker", "database", "migrations", "isolation", "clock", "engine",
        "queue",
    }  # fmt: skip
    assert [f for f in report["findings"] if f["mark"] == "fail"] == []
    (engine,) = (f for f in report["findings"] if f["part"] == "engine")
    assert "5.0e-06" in engine["found"]
    assert "AVX9, oneDNN packs float32" in engine["found"]
    (here,) = (f for f in report["findings"] if f["part"] == "processor")
    assert processor.level() in here["found"]
    assert "PostgreSQL 18" in shell("doctor").stdout


def test_the_store_of_files_is_named_and_tried(at, tmp_path):
    assert found(at, "files") == [("ok", "in the database", "")]
    folder = at.model_copy(update={"file_store": f"file://{tmp_path}/files"})
    ((mark, said, todo),) = found(folder, "files")
    assert (mark, "No such file" in said, "where-files-lie" in todo) == ("fail", True, True)
    (tmp_path / "files").mkdir()
    ((mark, said, _),) = found(folder, "files")
    assert (mark, said) == ("ok", f"file://{tmp_path}/files can be written")


def test_a_queue_without_a_worker_is_a_failure_that_says_what_to_start(shell, at, factory):
    with factory.begin() as session:
        a_job(session, a_tenant(session))
    result = shell("doctor", ok=False)
    assert "ONWARD_MODEL=tiny" in result.stdout
    ((mark, said, _),) = found(at, "queue")
    assert (mark, "1 queued" in said) == ("fail", True)


def test_a_silent_worker_and_one_without_a_self_check(at, factory, ready):
    with factory.begin() as session:
        session.execute(update(Worker).where(Worker.id == ready).values(about={"scorer": "vllm", "dtype": "float32"}))
    ((mark, said, todo),) = found(at, "engine")
    assert (mark, "no self-check" in said) == ("warn", True)
    assert "ONWARD_SELF_CHECK" in todo
    with factory.begin() as session:
        old = text("clock_timestamp() - interval '2 minutes'")
        session.execute(update(Worker).where(Worker.id == ready).values(heartbeat_at=old))
    ((mark, said, _),) = found(at, "engine")
    assert (mark, said) == ("warn", "1 of tiny fell silent")


def beside(factory, **about):
    """Another worker, that said this of itself."""
    with factory.begin() as session:
        worker = workers.register(session, model="tiny", host="there", pid=2)
        workers.beat(session, worker, state="ready", capacity=1, about={"scorer": "torch", "onward": "0.1.0", **about})
        goes_on(session, worker)
    return worker


@pytest.mark.parametrize(
    "about, several",
    [
        ({}, []),  # without vLLM: no other build
        ({"onward": "0.2.0"}, ["different builds: onward 0.1.0 and 0.2.0"]),
        ({"scorer": "vllm", "vllm": "0.33.0", "max_difference": 0.0}, ["different builds: vllm 0.32.0 and 0.33.0"]),
    ],
)
def test_workers_of_different_builds_are_told_and_scorers_of_one_are_not(at, factory, ready, about, several):
    other = beside(factory, **about)
    try:
        assert [said for mark, said, _ in found(at, "engine") if mark == "warn"] == several
    finally:
        with factory.begin() as session:
            session.execute(delete(Worker).where(Worker.id == other))


def test_a_worker_says_what_a_forward_takes_on_it(at, factory, ready):
    line = {"fixed_seconds": 0.111, "token_seconds": 0.00347, "error": 0.03, "sizes": 3}
    with factory.begin() as session:
        session.execute(update(Worker).where(Worker.id == ready).values(about={"dtype": "float32", "training": line}))
    ((_, said, _),) = found(at, "engine")
    assert said.endswith(", a forward 111 ms and 3.47 ms a scored token (within 3%)")


@pytest.mark.parametrize(
    "wrong, part",
    [
        ({"database_url": "postgresql://onward@127.0.0.1:1/onward"}, "database"),
        ({"redis_url": "redis://127.0.0.1:1/0"}, "broker"),
        ({"models": {}}, "models"),
        ({"models": {"tiny": "/nowhere"}}, "models"),
    ],
)
def test_what_is_away_or_wrong_is_named_and_the_rest_is_still_looked_at(at, ready, wrong, part):
    findings = list(examine(at.model_copy(update=wrong)))
    assert {f.part for f in findings if f.mark == "fail"} == {part}
    assert all(f.todo for f in findings if f.mark != "ok")
    assert len({f.part for f in findings}) >= 4


def test_a_database_that_was_never_migrated(at, empty_database_url):
    findings = list(examine(at.model_copy(update={"database_url": empty_database_url})))
    (migrations,) = (f for f in findings if f.part == "migrations")
    assert (migrations.mark, "onward migrate" in migrations.todo) == ("fail", True)


def test_a_full_disk_and_a_broker_that_forgets(at, monkeypatch, tmp_path):
    monkeypatch.setattr("cli.doctor.FREE_BYTES", 1 << 60)
    ((mark, _, todo),) = found(at, "store")
    assert (mark, "snapshots/" in todo) == ("warn", True)
    import redis

    with redis.Redis.from_url(at.redis_url) as client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert ("warn", "maxmemory-policy is allkeys-lru", "set it to noeviction: doorbells may vanish") in found(
                at, "broker"
            )
        finally:
            client.config_set("maxmemory-policy", before)


def test_a_worker_out_of_service_is_a_failure_with_its_reason(at, factory, ready):
    with factory.begin() as session:
        workers.out(session, ready, "disk: no space left")
    (finding,) = [f for f in found(at, "engine") if f[0] == "fail"]
    assert "out" in finding[1]
    assert "disk: no space left" in finding[1]
    assert "onwardworkeroutofservice" in finding[2]
