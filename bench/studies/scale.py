"""`python -m bench.studies.scale [--ended N] [--queued N] [--tenants N] [--journal N]`: what a pick, a claim and a
scrape cost in a database of that size and in one a tenth of it, as medians; written to bench/results/scale.json.

The rows are made by SQL in an embedded PostgreSQL that is gone afterwards; what is measured is the service's own code,
one transaction at a time, rolled back. Half of all jobs are of one tenant: the worst that others have to live with.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

from prometheus_client import generate_latest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from api.ops.metrics import registry
from api.settings import Settings
from bench.report.measure import machine
from cli.local.embedded import Embedded
from db import files, outlook, workers
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.overview import overview
from db.retention import Keep, prune
from db.session import make_engine
from db.sweep import sweep
from db.tables import Job
from db.tenant import jobs
from db.tenant.waiting import waiting
from db.worker import journal, leases, shares
from db.worker.candidates import candidates
from db.worker.journal import Step
from migrations.run import upgrade
from worker.slices.scheduler import burst, pick

MODEL, COHORT, QUANTUM = "demo", 8, 1000.0
BIG = "ten_0"  # half of everything is its
RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
# Without triggers of constraints, which would check three million rows one by one; the shares are made below.
FILL = Template("""
    SET session_replication_role = replica;
    INSERT INTO tenants (id, name, weight, max_jobs) SELECT 'ten_' || n, 't' || n, 1 + n % 4, 1000000
      FROM generate_series(0, $tenants - 1) n;
    INSERT INTO files (id, tenant_id, purpose, filename, format, bytes, rows, sha256)
    SELECT 'file-' || n || '-' || k, 'ten_' || n, 'fine-tune', 'f', 'completion', 40, 1, ''
      FROM generate_series(0, $tenants - 1) n, generate_series(1, 50) k;
    INSERT INTO file_chunks (file_id, number, tenant_id, data) SELECT id, 0, tenant_id, '\\x00' FROM files;
    INSERT INTO workers (id, model, host, pid, state) SELECT 'wrk_' || n, '$model', 'h', n, 'ready'
      FROM generate_series(1, 8) n;
    INSERT INTO jobs (id, tenant_id, model, spec, request, request_hash, training_file, total_steps, step,
                      price_tokens, scored_tokens, state, created_at, started_at, finished_at)
    SELECT 'ftjob-' || n, 'ten_' || t, '$model', CAST(:spec AS jsonb),
           jsonb_build_object('model', '$model', 'metadata', jsonb_build_object('n', n || '', 'team', 'x' || n % 7)),
           md5(n || ''), 'file-' || t || '-' || 1 + n % 50, 100, CASE WHEN n < $ended THEN 15 ELSE 0 END, 100000,
           CASE WHEN n < $ended THEN 15000 ELSE 0 END, CASE WHEN n < $ended THEN 'cancelled' ELSE 'queued' END,
           now() - ($ended + $queued - n) * interval '1 s', now() - ($ended + $queued - n) * interval '1 s',
           CASE WHEN n < $ended THEN now() - ($ended + $queued - n) * interval '1 s' + interval '0.5 s' END
      FROM (SELECT n, CASE WHEN n % 2 = 0 THEN 0 ELSE (n / 2) % $tenants END AS t
              FROM generate_series(0, $ended + $queued - 1) n) made;
    INSERT INTO leases (job_id, tenant_id, worker_id, token, expires_at)
    SELECT id, tenant_id, 'wrk_' || 1 + row_number() OVER () % 8, 1, now() + interval '1 day'
      FROM (SELECT id, tenant_id FROM jobs WHERE state = 'queued' ORDER BY created_at LIMIT 64) held;
    INSERT INTO journal (job_id, step, tenant_id, losses, tokens, token, created_at)
    SELECT job.id, n, job.tenant_id, ARRAY[0.5, 0.6], 1000, 1, job.created_at
      FROM jobs job, generate_series(0, $journal / $ended - 1) n WHERE job.state = 'cancelled';
    INSERT INTO events (job_id, tenant_id, number, message) SELECT id, tenant_id, k, 'said'
      FROM jobs, generate_series(1, 5) k;
    INSERT INTO usage (minute, model, tenant_id, tokens)
    SELECT date_trunc('minute', now()) - k * interval '1 min', '$model', id, 1000
      FROM tenants, generate_series(0, 1439) k;
    INSERT INTO usage_days (tenant_id, day, tokens) SELECT id, current_date - k, 1000
      FROM tenants, generate_series(0, 399) k;
    INSERT INTO shares (model, tenant_id, finish) SELECT '$model', tenant_id, 1e6 + 1e4 * random()
      FROM jobs WHERE state = 'queued' GROUP BY tenant_id;
    INSERT INTO clocks (model, virtual, rate, weights, places, slice_seconds, noted_at)
    VALUES ('$model', 1e6, 1000, 100, 64, 3, now());
    SET session_replication_role = origin
""")


def spec() -> JobSpec:
    return JobSpec(
        model=MODEL,
        objective="lm",
        adapter=AdapterSpec(rank=4, alpha=8, targets=("q_proj",)),
        method=methods.settings(name="mezo", eps=1e-3, learning_rate=1e-3),
        training_file="file-0-1",
        steps=100,
        batch_size=2,
        eval_every=100,
        seed=7,
    )


def fill(url: str, sizes: dict[str, int]) -> None:
    """A database of so many `ended` and `queued` jobs, `tenants` and rows of the `journal`, analysed."""
    upgrade(url)
    engine = make_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in FILL.substitute(sizes, model=MODEL).split(";"):
            given = {"spec": spec().model_dump_json()} if ":spec" in statement else {}
            connection.execute(text(statement), given)
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def acts(factory: sessionmaker[Session], redis_url: str) -> Iterator[tuple[str, float, Callable[[Session], object]]]:
    """What is measured, and the milliseconds aimed at (infinite: none)."""
    none = float("inf")
    with factory() as session:
        held = select(Job.id).where(Job.state == "queued").order_by(Job.created_at.desc()).limit(2)
        last, other = session.scalars(held)

    def turn(session: Session) -> None:
        picked = pick(candidates(session, MODEL, COHORT), COHORT, QUANTUM)
        shares.serve(session, MODEL, [w.tenant_id for w in picked], burst(COHORT, QUANTUM))

    def claim(session: Session) -> leases.Claim:
        found = leases.claim(session, last, "wrk_1", 15.0, 5)
        assert found is not None
        return found

    def shown(session: Session) -> None:
        assert waiting(BIG, session, [session.get_one(Job, other)] + jobs.page(BIG, session)[0]) is not None

    gauges, _ = registry(factory, Settings(models={MODEL: "/m"}, redis_url=redis_url))
    request: dict[str, Any] = {"request": {}, "request_hash": "h", "price_tokens": 1, "idempotency_key": None}
    yield "candidates", 10, lambda session: candidates(session, MODEL, COHORT)
    yield "pick and serve", 10, turn
    yield "claim", 10, claim
    yield "claim and commit a step", none, lambda s: journal.flush(s, claim(s), [Step(0, [0.5], 1000)])
    yield "gauges", 50, lambda session: overview(session, [MODEL])
    yield "scrape", 50, lambda _: generate_latest(gauges)
    yield "purge of a file", none, lambda session: files.delete(BIG, session, "file-0-1")
    yield "first page of jobs", none, lambda session: jobs.page(BIG, session)
    yield "jobs by rare metadata", none, lambda session: jobs.page(BIG, session, metadata={"n": "100"})
    yield "jobs by common metadata", none, lambda session: jobs.page(BIG, session, metadata={"team": "x3"})
    yield "why a page of jobs waits", none, shown
    yield "create", none, lambda session: jobs.create(BIG, session, spec=spec(), **request)
    yield "sweep", none, lambda session: sweep(session, lambda _: None, 0)
    yield "note of the outlook", none, lambda session: outlook.note(session, MODEL, COHORT, 3.0)
    yield "a batch of pruning", none, lambda session: prune(session, Keep(0.001, 0.001, 400, 7))


def measured(factory: sessionmaker[Session], redis_url: str, times: int = 30) -> dict[str, dict[str, float]]:
    """Milliseconds of each act: median, and the tenth and ninetieth percentile, of `times` after three."""
    found: dict[str, dict[str, float]] = {}
    for name, aim, act in acts(factory, redis_url):
        took = []
        for _ in range(times + 3):
            with factory() as session:
                for worker in ("wrk_1", "wrk_2"):
                    workers.beat(session, worker)
                session.flush()
                begun = time.perf_counter()
                act(session)
                session.flush()
                took.append(1000 * (time.perf_counter() - begun))
                session.rollback()
        tenths = statistics.quantiles(took[3:], n=10)
        found[name] = {"median ms": round(statistics.median(took[3:]), 2)}
        found[name] |= {"10 % ms": round(tenths[0], 2), "90 % ms": round(tenths[-1], 2)}
        if aim != float("inf"):
            found[name]["aim ms"] = aim
        print(f"{name:28} {found[name]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"ended": 200_000, "queued": 10_000, "tenants": 200, "journal": 3_000_000}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    whole = {name: getattr(args, name) for name in defaults}
    said: dict[str, Any] = {"machine": machine()}
    for label, sizes in (("a tenth", {k: v // 10 for k, v in whole.items()}), ("whole", whole)):
        with tempfile.TemporaryDirectory(prefix="onward-scale-") as folder:
            Path(folder).chmod(0o711)
            embedded = Embedded(Path(folder), durable=False)
            urls = embedded.start()
            begun = time.monotonic()
            fill(urls.database_url, sizes)
            print(f"{label}: {sizes} in {time.monotonic() - begun:.0f} s", flush=True)
            engine = make_engine(urls.database_url)
            said[label] = {
                "rows": sizes,
                "acts": measured(sessionmaker(engine, expire_on_commit=False), urls.redis_url),
            }
            engine.dispose()
            embedded.stop()
    args.out.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
