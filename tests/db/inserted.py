"""Rows that tests start from, made through the rooms' own functions."""

from typing import Any

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from db import files, queue, workers
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.ids import new_id
from db.tables import Job, Worker
from db.tenant import jobs, keys
from db.worker import leases
from db.worker.leases import Claim
from tests.waiting import HANG

MODEL = "tiny"


def a_tenant(session: Session, **limits: Any) -> str:
    return keys.create(session, new_id("t-"), **limits).id


def a_file(session: Session, tenant: str, data: bytes = b'{"prompt": "a", "completion": "b"}\n') -> str:
    made = files.create(
        tenant, session, filename="a.jsonl", purpose="fine-tune", format="completion", rows=1, chunks=[data]
    )
    return made.id


def a_spec(training_file: str, **changes: Any) -> JobSpec:
    wanted: dict[str, Any] = {
        "model": MODEL,
        "objective": "lm",
        "adapter": AdapterSpec(rank=4, alpha=8, targets=("q_proj",)),
        "method": methods.settings(name="mezo", eps=1e-3, learning_rate=1e-3),
        "training_file": training_file,
        "steps": 10,
        "batch_size": 2,
        "eval_every": 5,
        "seed": 7,
    }
    return JobSpec(**(wanted | changes))


def a_job(session: Session, tenant: str, training_file: str | None = None, price: int = 100, **changes: Any) -> Job:
    """A queued job of `tenant`; `changes` are of the spec."""
    spec = a_spec(training_file or a_file(session, tenant), **changes)
    job, created = jobs.create(
        tenant, session, spec=spec, request={}, request_hash=new_id(""), price_tokens=price, idempotency_key=None
    )
    assert created
    return job


def a_worker(session: Session, model: str = MODEL) -> str:
    """One that lives: its next heartbeat is not waited for."""
    worker = workers.register(session, model=model, host="here", pid=1)
    beats_until = text(f"clock_timestamp() + interval '{HANG} seconds'")
    session.execute(update(Worker).where(Worker.id == worker).values(heartbeat_at=beats_until))
    return worker


def patient_ringer(redis_url: str) -> queue.Ring:
    """A ring that is lost only where the broker is away, not where it is slow."""
    app = queue.celery_app.__wrapped__(redis_url)
    app.conf.broker_connection_timeout = HANG
    app.conf.broker_transport_options |= {"socket_connect_timeout": HANG, "socket_timeout": HANG}
    return queue.ringer(app)


def a_claim(session: Session, job: Job, worker: str | None = None, seconds: float = HANG) -> Claim:
    claim = leases.claim(session, job.id, worker or a_worker(session), seconds, 5)
    assert claim is not None
    return claim
