"""Workers, tenants and sweeps at once on the same few tenants: no deadlock, no token uncounted, nobody forgotten."""

import random
from threading import Thread

from sqlalchemy import func, select

from db import outlook
from db.retention import Keep, prune
from db.tables import Daily, Job, Share, Usage
from db.tenant import jobs
from db.worker import journal, leases, shares
from db.worker.candidates import candidates
from db.worker.journal import Step
from tests.db.inserted import MODEL, a_file, a_job, a_tenant, a_worker
from tests.waiting import HANG

ROUNDS, TENANTS = 40, 4


def test_whoever_works_at_once_all_is_counted(factory):
    with factory.begin() as session:
        tenants = [a_tenant(session, max_running=n) for n in (1, 2, None, None)]
        files = {t: a_file(session, t) for t in tenants}
        for t in tenants:
            a_job(session, t, files[t])
        workers = [a_worker(session) for _ in range(3)]
    failures: list[BaseException] = []

    def work(worker: str) -> None:
        for _ in range(ROUNDS):
            with factory.begin() as session:
                waiting = candidates(session, MODEL, 3)
                shares.serve(session, MODEL, [w.tenant_id for w in waiting], 30)
            for w in waiting[:3]:
                with factory.begin() as session:
                    claim = leases.claim(session, w.job_id, worker, HANG, 5)
                if claim is None:
                    continue
                if claim.step < claim.spec.steps:
                    with factory.begin() as session:
                        journal.flush(session, claim, [Step(claim.step, [1.0], 7)])
                with factory.begin() as session:
                    leases.release(session, claim)

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(ROUNDS):
            tenant = rng.choice(tenants)
            with factory.begin() as session:
                job = a_job(session, tenant, files[tenant])
            if rng.random() < 0.7:
                with factory.begin() as session:
                    jobs.cancel(tenant, session, job.id)

    def sweep() -> None:
        for _ in range(ROUNDS):
            with factory.begin() as session:
                outlook.note(session, MODEL, 8, 3.0)
                prune(session, Keep(1, 1, 1, 1))

    def noted(act, *given) -> None:
        try:
            act(*given)
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=noted, args=(work, worker)) for worker in workers]
    threads += [Thread(target=noted, args=(ask, seed)) for seed in range(3)]
    threads += [Thread(target=noted, args=(sweep,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with factory.begin() as session:
        scored = session.scalar(select(func.sum(Job.scored_tokens)))
        assert (
            session.scalar(select(func.sum(Usage.tokens))) == session.scalar(select(func.sum(Daily.tokens))) == scored
        )
        assert scored > 0
        waits = session.scalars(select(Job.tenant_id).where(Job.state.in_(("queued", "running"))))
        assert {*waits} <= {*session.scalars(select(Share.tenant_id).where(Share.model == MODEL))}
