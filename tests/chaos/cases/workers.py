"""Cases 2, 3, 6 and 11: what one run, one row or one disk does to a worker is nobody else's matter."""

import re
import signal
import time
from collections.abc import Iterator

import openai
from sqlalchemy import func, select

from db.tables import Event, Lease
from db.tables import Worker as WorkerRow
from tests.chaos.cases.ground import FOREVER, SLICE, Claim, Ground, within
from tests.chaos.cursed import VARIABLE
from tests.chaos.faults import small_disk
from tests.chaos.fleet import CURSED
from tests.waiting import AGES

QUICK = {"ONWARD_LEASE_SECONDS": "2", "ONWARD_FLUSH_SECONDS": "0.01"}


def run_that_kills(ground: Ground) -> Iterator[Claim]:
    """2: a run that kills every worker ends alone; who was beside it when it did is no suspect for long."""
    adversary = ground.tenant("adversary")
    bystanders = [ground.tenant("bystander") for _ in range(2)]
    jobs = [(who, ground.submit(who, steps=60, seed=seed)) for who in bystanders for seed in (1, 2)]
    killer = ground.submit(adversary, rank=13)
    post = ground.post(main=CURSED, **QUICK, **{VARIABLE: "13:kill"})
    with ground.crew(post):
        ground.over(killer, *(job for _, job in jobs))
        deaths = len(post.ended)
        yield ground.state(killer, "failed", "the killer fails as poison", "poison")
        for who, job in jobs:
            yield ground.whole(who, job)
        worst = max(ground.waited(job) for _, job in jobs)
        told = f"{deaths} deaths, longest wait of a bystander {worst:.1f} s = {worst / SLICE:.1f} slices"
        yield Claim("deaths are few: once together, three times alone", 0 < deaths <= 5, told)


def row_from_a_newer_release(ground: Ground) -> Iterator[Claim]:
    """3: a job that cannot be boarded waits for a worker that can; its model's queue goes on."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    strange = ground.submit(adversary)
    ground.execute("""UPDATE jobs SET spec = spec || '{"of_a_newer_release": 1}' WHERE id = :job""", job=strange)
    post = ground.post()
    with ground.crew(post):
        ground.ready(post)
        innocent = ground.submit(bystander, steps=60)
        ground.over(innocent, seconds=10 * SLICE)
        yield ground.whole(bystander, innocent)
        yield ground.waits(innocent, 1.0)
        yield ground.state(strange, "queued", "it waits")
        free = within(lambda: _leases(ground, strange) == 0, 3 * SLICE)
        yield Claim("no lease on it is renewed", bool(free), f"{_leases(ground, strange)} leases")
        yield Claim("the worker lives", not post.ended, f"{len(post.ended)} ends")
        adversary.fine_tuning.jobs.cancel(strange)
        begun = time.monotonic()
        within(lambda: ground.fleet.job(strange).state == "cancelled", 5 * SLICE)
        took = time.monotonic() - begun
        yield ground.state(strange, "cancelled", "its cancel is obeyed")
        yield Claim("within two slices", took <= 2 * SLICE, f"{took / SLICE:.2f} slices")


def disk_that_is_full(ground: Ground) -> Iterator[Claim]:
    """6: a worker that cannot write is out of service, and what it held goes on elsewhere, unblamed."""
    bystander = ground.tenant("bystander")
    jobs = [ground.submit(bystander, steps=20, seed=seed) for seed in (1, 2)]
    with small_disk(ground.fleet.home / "case-6") as (home, fill):
        post = ground.post(ONWARD_HOME=str(home))
        with ground.crew(post):
            first = post.process
            assert first is not None
            within(lambda: any(ground.fleet.job(job).state == "running" for job in jobs), 15 * SLICE)
            fill()

            def out() -> bool:
                failed = any(ground.fleet.job(job).state == "failed" for job in jobs)
                return failed or not first.alive or (_state(ground, first.pid) not in ("", "starting", "ready"))

            within(out, 15 * SLICE)
            state = _state(ground, first.pid) if first.alive else "ended"
            yield Claim("the worker is out of service", state not in ("ready", "starting"), state)
            free = within(lambda: all(ground.fleet.job(job).state == "queued" for job in jobs), 2 * SLICE)
            blame = [(row.state, row.attempts, getattr(row, "deaths", 0)) for row in map(ground.fleet.job, jobs)]
            fine = bool(free) and not any(attempts or deaths for _, attempts, deaths in blame)
            yield Claim("what it held is given back, and no attempt spent", fine, f"(state, attempts, deaths) {blame}")
    with ground.crew(ground.post()):
        ground.over(*jobs, seconds=15 * SLICE)
        yield ground.whole(bystander, *jobs, what="its jobs end well elsewhere")


def promises_kept(ground: Ground) -> Iterator[Claim]:
    """11: an accepted cancel cancels, a job's events are its own, deaths are counted, a canary acts."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    # Stopped between the adapter on disk and its row: the cancel that is accepted then must win, or be refused.
    post = ground.post(ONWARD_FAULT="before_finish:1:stop", ONWARD_LEASE_SECONDS=str(AGES))
    with ground.crew(post):
        job = ground.submit(bystander, steps=10)
        worker = post.process
        assert worker is not None
        worker.stopped()
        try:
            bystander.fine_tuning.jobs.cancel(job)
            wanted = "cancelled"
        except openai.ConflictError:
            wanted = "succeeded"
        worker.send(signal.SIGCONT)
        ground.over(job)
        yield ground.state(job, wanted, "an accepted cancel ends as cancelled")
    yield from _events(ground)
    with ground.crew(post := ground.post(main=CURSED, **QUICK, **{VARIABLE: "13:kill:6"})):
        deadly = ground.submit(adversary, rank=13, steps=FOREVER, held_out=False)
        within(lambda: (ground.fleet.tend(), len(post.ended) > 5 or ground.fleet.job(deadly).state == "failed")[1])
        told = ground.state(deadly, "failed", "a job that dies every second step is poison", "poison")
        yield Claim(told.what, told.held, f"{told.measured} after {len(post.ended)} deaths")
        ground.cancel((adversary, deadly))
    yield from _canary(ground)


def _events(ground: Ground) -> Iterator[Claim]:
    clients = [ground.tenant("one"), ground.tenant("other")]
    jobs = [ground.submit(client) for client in clients]
    for _ in range(3):  # in turns, so that numbers that are shared have gaps
        for client, job in zip(clients, jobs, strict=True):
            client.fine_tuning.jobs.pause(job)
            client.fine_tuning.jobs.resume(job)
    found = [[e.id for e in c.fine_tuning.jobs.list_events(j, limit=20)] for c, j in zip(clients, jobs, strict=True)]
    numbers = [sorted(int(re.findall(r"(\d+)$", x)[0]) for x in ids) for ids in found]
    dense = all(own == list(range(own[0], own[0] + len(own))) for own in numbers)
    alike = numbers[0][0] == numbers[1][0]
    yield Claim("the ids of a job's events say nothing of others", dense and alike, f"{numbers[0]}, {numbers[1]}")
    ground.cancel(*zip(clients, jobs, strict=True))
    with ground.fleet.factory.begin() as session:
        kept = session.scalar(select(func.count()).select_from(Event).where(Event.job_id.in_(jobs)))
    assert kept, "events are there"


def _canary(ground: Ground) -> Iterator[Claim]:
    tenant = ground.tenant("bystander")
    drifting = ground.post(main=CURSED, ONWARD_CANARY_SECONDS="0.1", **{VARIABLE: "13:drift:5"})
    job = ground.submit(tenant, rank=13, steps=FOREVER, held_out=False)
    with ground.crew(drifting):
        worker = drifting.process
        assert worker is not None
        within(lambda: not worker.alive or _state(ground, worker.pid) not in ("", "starting", "ready"), 10 * SLICE)
        state = _state(ground, worker.pid) if worker.alive else "ended"
        yield Claim("a canary off its floor takes the worker out", state not in ("ready", "starting"), state)
        row = ground.fleet.job(job)
        yield Claim("its jobs are not blamed", row.state != "failed", row.state)
    ground.fleet.lapse(job)
    ground.cancel((tenant, job))


def _leases(ground: Ground, job: str) -> int:
    live = select(func.count()).where(Lease.job_id == job, Lease.expires_at > func.clock_timestamp())
    with ground.fleet.factory.begin() as session:
        return int(session.scalar(live) or 0)


def _state(ground: Ground, pid: int) -> str:
    """As the worker with this process id has last said of itself; empty where it has not yet."""
    said = select(WorkerRow.state).where(WorkerRow.pid == pid).order_by(WorkerRow.started_at.desc()).limit(1)
    with ground.fleet.factory.begin() as session:
        return session.scalar(said) or ""
