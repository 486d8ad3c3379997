"""Cases 9, 12, 13 and 14: scored tokens are shared by weight, and nobody small waits behind somebody large."""

import signal
from collections.abc import Iterator, Sequence

from db.ids import new_id
from db.overview import jain
from db.tables import Job
from tests.chaos.cases.ground import FOREVER, Claim, Ground, within

QUEUED = 1000
OFF = 0.02  # of all tokens, by which a share may miss


def inside_a_cohort(ground: Ground) -> Iterator[Claim]:
    """9: within one slice tokens go by tenants' weights, not by their number of jobs."""
    shares, told = measured(ground, [(1.0, 1), (2.0, 1), (4.0, 1)], steps=700, ONWARD_COHORT="8")
    error = off(shares, (1, 2, 4))
    yield Claim("weights 1:2:4 inside a cohort", error <= OFF, f"{told}, off by {error:.3f}")
    shares, told = measured(ground, [(1.0, 1), (1.0, 7)], steps=700, ONWARD_COHORT="8")
    error = off(shares, (1, 1))
    yield Claim("one job beside seven of equal weight", error <= OFF, f"{told}, off by {error:.3f}")


def equal_tenants(ground: Ground) -> Iterator[Claim]:
    """12: twenty equal tenants with unequal jobs."""
    shares, _ = measured(ground, [(1.0, 1 + i % 3) for i in range(20)], steps=2000, ONWARD_COHORT="8", **BRIEF)
    index = jain(list(shares))
    yield Claim("Jain index of 20 equal tenants with unequal jobs", index >= 0.99, f"{index:.4f}")


def by_weight(ground: Ground) -> Iterator[Claim]:
    """13: weights, where not all jobs fit into a slice."""
    shares, told = measured(ground, [(1.0, 4), (2.0, 4), (4.0, 4)], steps=2000, ONWARD_COHORT="2", **BRIEF)
    error = off(shares, (1, 2, 4))
    yield Claim("weights 1:2:4 across slices", error <= OFF, f"{told}, off by {error:.3f}")


def behind_a_thousand(ground: Ground) -> Iterator[Claim]:
    """14: a small tenant comes when another has a thousand jobs queued."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    first = ground.submit(adversary, held_out=False, steps=FOREVER)
    copied(ground, first, QUEUED - 1)
    post = ground.post(ONWARD_SLICE_SECONDS="1")
    with ground.crew(post):
        ground.ready(post)
        worker = post.process
        assert worker is not None
        within(lambda: worker.metric("onward_slices_total") >= 3)
        before = worker.metric("onward_slices_total")
        small = ground.submit(bystander, held_out=False, steps=20)
        ground.at(small, 1)
        slices = worker.metric("onward_slices_total") - before
        step = ground.fleet.job(small).step
        told = f"{slices:.0f} slices" if step else "no step"
        yield Claim(f"first step behind {QUEUED} queued jobs", step > 0 and slices <= 2, told)
    ground.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE model = :model", model=ground.model)
    ground.execute("DELETE FROM leases WHERE job_id IN (SELECT id FROM jobs WHERE model = :model)", model=ground.model)


BRIEF = {"ONWARD_SLICE_SECONDS": "0.3"}


def measured(ground: Ground, tenants: Sequence[tuple[float, int]], steps: int, **env: str) -> tuple[list[float], str]:
    """Each tenant's share of all scored tokens, where all have work all the time; `tenants` are (weight, jobs) each.

    The worker is told to end once all have taken `steps` steps: what it has scored is committed then, of everybody.
    """
    clients = [ground.tenant(f"share-{i}", weight) for i, (weight, _) in enumerate(tenants)]
    jobs: list[list[str]] = []
    for number, (client, (_, count)) in enumerate(zip(clients, tenants, strict=True)):
        wide = {"batch_size": (2, 4, 8)[number % 3], "rank": (1, 2, 4)[number % 3]} if len(tenants) > 4 else {}
        jobs.append([ground.submit(client, held_out=False, steps=FOREVER, seed=n, **wide) for n in range(count)])
    everyone = [job for own in jobs for job in own]
    post = ground.post(**env)
    with ground.crew(post):
        ground.ready(post)
        within(lambda: (ground.fleet.tend(), ground.steps(everyone) >= steps)[1])
        worker = post.process
        assert worker is not None
        worker.send(signal.SIGTERM)
        worker.died()
        post.process = None
        used = [ground.tokens(own) for own in jobs]
    ground.cancel(*((client, job) for client, own in zip(clients, jobs, strict=True) for job in own))
    whole = max(1, sum(used))
    return [n / whole for n in used], "shares " + ", ".join(f"{n / whole:.3f}" for n in used[:4])


def off(shares: Sequence[float], weights: Sequence[float]) -> float:
    """By how much of all tokens the worst share misses its own."""
    return max(abs(s - w / sum(weights)) for s, w in zip(shares, weights, strict=True))


def copied(ground: Ground, job: str, count: int) -> None:
    """So many more jobs like this one, queued."""

    def insert(session) -> None:
        row = session.get_one(Job, job)
        kept = {c.key: getattr(row, c.key) for c in Job.__table__.columns if c.key not in ("id", "idempotency_key")}
        session.execute(Job.__table__.insert(), [{**kept, "id": new_id("ftjob-")} for _ in range(count)])

    ground.fleet.admin(insert)
