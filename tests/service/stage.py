"""A whole service for fault tests: own PostgreSQL and Valkey, the API process, workers that may be killed at will."""

import hashlib
import io
import json
import os
import signal
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from openai import OpenAI
from sqlalchemy import func, select, update

from cli.local.embedded import Embedded
from db.session import sessions
from db.tables import Adapter, Evaluation, Job, JournalStep, Lease
from db.tables import Worker as WorkerRow
from db.tenant import keys
from migrations.roles import set_passwords
from migrations.run import upgrade
from tests.ports import free_port
from tests.service.processes import Forked, Process, started
from tests.waiting import AGES, HANG, until
from worker.adapters import verify
from worker.environment import RELOADED

SECRET = "between the two of us"
# A worker of an engine that answers chats beside its training.
SERVES = {"ONWARD_SERVE_SECRET": SECRET, "ONWARD_SERVE_ADDRESS": "127.0.0.1"}
# Slices and sweeps of a tenth of the usual length, so that what takes seconds in service takes tenths here. A lease
# runs out where a test wants that (MORTAL, `Stage.lapse`), never because the machine is slow.
HASTE = {
    "ONWARD_LEASE_SECONDS": str(AGES),
    "ONWARD_SLICE_SECONDS": "1",
    "ONWARD_SWEEP_SECONDS": "0.5",
    "ONWARD_HEARTBEAT_SECONDS": "0.5",
    "ONWARD_FLUSH_SECONDS": "0.2",
    "ONWARD_WISH_SECONDS": "0.1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
# A worker that is in the middle of a slice whenever it is looked at: a slice ends with its jobs, or by being told to.
UNBROKEN = {"ONWARD_SLICE_SECONDS": str(AGES)}
# And one to be killed: its lease runs out by itself soon after. Where that happens too early it claims the job anew.
MORTAL = UNBROKEN | {"ONWARD_LEASE_SECONDS": "3"}


@dataclass
class Stage:
    """Everything under `home`; `models` are names of the one tiny base model, each with its own queue."""

    home: Path
    base: Path
    models: tuple[str, ...]
    embedded: Embedded = field(init=False)
    url: str = ""
    processes: list[Process] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)  # of every process

    def start(self) -> None:
        os.environ["OMP_NUM_THREADS"] = HASTE["OMP_NUM_THREADS"]  # what the fork server imports reads it
        self.embedded = Embedded(self.home, durable=False)
        self.urls = urls = self.embedded.start()
        self.database_url, self.redis_url = urls.database_url, urls.redis_url
        upgrade(self.database_url)
        set_passwords(self.database_url, urls.passwords)
        self.factory = sessions(self.database_url)
        port = free_port()
        api = self.serve(port)
        self.url = f"http://127.0.0.1:{port}"
        until(lambda: self._ready(api), "the API is ready")

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        self.factory.kw["bind"].dispose()
        self.embedded.stop()

    def serve(self, port: int) -> Process:
        """The API's process, on this port."""
        return self.process(
            "api", {"ONWARD_HOST": "127.0.0.1", "ONWARD_PORT": str(port), "ONWARD_SERVE_SECRET": SECRET}
        )

    def process(self, module: str, env: dict[str, str], fork: bool = False) -> Process:
        """`python -m MODULE`, or with `fork` a worker from the fork server, whose `main` may be another module's."""
        common = {
            "ONWARD_DATABASE_URL": self.urls.api_url if module == "api" else self.urls.worker_url,
            "ONWARD_REDIS_URL": self.redis_url,
            "ONWARD_HOME": str(self.home),
            "ONWARD_MODELS": json.dumps({name: str(self.base) for name in self.models}),
        }
        log = self.home / f"{module}-{len(self.processes)}.log"
        log.touch()  # it can be read before the process has come to write
        whole = {**os.environ, **HASTE, **common, **self.env, **env}
        main = "worker.__main__" if module == "worker" else module
        child = Forked(whole | {RELOADED: "1"}, log, main) if fork else started(module, whole, log)
        self.processes.append(Process(child, log))
        return self.processes[-1]

    def worker(
        self,
        model: str,
        *,
        scorer: str = "vllm",
        wait: bool = True,
        fork: bool = False,
        main: str = "worker",
        **env: str,
    ) -> Process:
        """A worker of `model`, ready unless told not to wait."""
        port = free_port()
        about = {"ONWARD_MODEL": model, "ONWARD_SCORER": scorer, "ONWARD_WORKER_METRICS_PORT": str(port)}
        worker = self.process(main, about | env, fork)
        worker.metrics_port = port
        if wait:
            self.ready(worker)
        return worker

    def ready(self, worker: Process) -> None:
        def serves() -> bool:
            assert worker.alive, worker.log.read_text()[-3000:]
            with self.factory.begin() as session:
                state = select(WorkerRow.state).where(WorkerRow.pid == worker.pid)
                return "ready" in session.scalars(state)

        until(serves, "the worker is ready")

    def tenant(self, name: str) -> OpenAI:
        with self.factory.begin() as session:
            tenant = keys.create(session, name)
            _, secret = keys.create_key(session, tenant.id)
        return OpenAI(base_url=f"{self.url}/v1", api_key=secret, max_retries=0, timeout=HANG)

    def job(self, job_id: str) -> Job:
        with self.factory.begin() as session:
            return session.get_one(Job, job_id)

    def reached(self, job_id: str, step: int) -> None:
        """Wait until `step` steps of the job are committed."""
        until(lambda: self.job(job_id).step >= step, f"{job_id} is at step {step}")

    def left(self, job_id: str) -> int:
        """The step at which a worker that was killed left the job, once its last transaction has ended either way."""
        with self.factory.begin() as session:
            return session.get_one(Job, job_id, with_for_update=True).step

    def lapse(self, job_id: str) -> None:
        """The time of the job's lease is up, as if it had passed."""
        with self.factory.begin() as session:
            lease = update(Lease).where(Lease.job_id == job_id)
            session.execute(lease.values(expires_at=func.clock_timestamp()))

    def freeze(self, worker: Process, job_id: str) -> None:
        """Stop the job's worker between two transactions: one that sleeps would keep everybody from the job's row."""

        def caught() -> bool:
            worker.send(signal.SIGSTOP)
            worker.stopped()
            with self.factory.begin() as session:
                rows = select(Job.id).join(Lease, Lease.job_id == Job.id).where(Job.id == job_id)
                if session.scalar(rows.with_for_update(skip_locked=True)) is not None:
                    return True
            worker.send(signal.SIGCONT)
            return False

        until(caught, "the worker stands between two transactions")

    def ended(self, job_id: str, state: str) -> Job:
        """Wait until the job has ended, and in this state."""
        over = ("succeeded", "failed", "cancelled")
        job = until(lambda: next((j for j in [self.job(job_id)] if j.state in over), None), f"{job_id} ends")
        assert job is not None
        assert (job.state, job.error) == (state, None)
        return job

    def whole(self, client: OpenAI, job_id: str) -> str:
        """The adapter's SHA-256, after everything that must hold of a finished job: each step is in the journal once,
        each was paid once, and the adapter on disk, in the row and in the tenant's download is the journal's replay."""
        job = self.ended(job_id, "succeeded")
        with self.factory.begin() as session:
            journal = select(JournalStep.step).where(JournalStep.job_id == job_id).order_by(JournalStep.step)
            steps = list(session.scalars(journal))
            row = session.scalars(select(Adapter).where(Adapter.job_id == job_id)).one()
            held = session.get(Lease, job_id)
            tokens = [
                session.scalars(select(table.tokens).where(table.job_id == job_id)).all()
                for table in (JournalStep, Evaluation)
            ]
        assert steps == list(range(job.total_steps))
        assert job.scored_tokens == sum(map(sum, tokens)) == job.price_tokens
        assert held is None
        with pytest.MonkeyPatch.context() as here:
            here.setenv("ONWARD_MODELS", json.dumps({name: str(self.base) for name in self.models}))
            verified = verify.verify(self.database_url, self.home, row.id)
        assert verified.ok
        assert verified.sha256 == row.sha256 == verified.on_disk
        with tarfile.open(fileobj=io.BytesIO(self.download(client, job_id))) as archive:
            member = archive.extractfile("adapter_model.safetensors")
            assert member is not None
            assert hashlib.sha256(member.read()).hexdigest() == row.sha256
        return row.sha256

    def download(self, client: OpenAI, job_id: str) -> bytes:
        """The job's adapter, as its tenant gets it."""
        _, file = client.fine_tuning.jobs.retrieve(job_id).result_files[:2]
        return client.files.content(file).read()

    def _ready(self, api: Process) -> bool:
        assert api.alive, api.log.read_text()[-3000:]
        try:
            return urlopen(f"{self.url}/readyz", timeout=HANG).status == 200
        except OSError:
            return False
