"""`python -m bench.sections.capacity`: the capacity model of docs/operations.md against a measured run of the service.

Predicted: seconds = price in scored tokens / (share * peak / FLOP of a token), with the machine's peak and the base
model's FLOP as a worker exports them (onward_peak_flops, onward_token_flops). Measured: several tenants' jobs on one
worker, from the first claim to the last end.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

from openai import OpenAI
from sqlalchemy import select

from bench.report.measure import RESULTS
from bench.sections.service import service, submit, upload, wait_for
from db.tables import Job
from db.tenant import keys

SHARE: Final = 0.8  # of the peak; measured 0.73 to 0.87 for activation `all` (bench.json)
JOBS: Final = ((12, 16), (12, 16), (20, 8))  # (steps, batch), a tenant each


def predicted_seconds(tokens: int, peak: float, token_flops: float, share: float = SHARE) -> float:
    """Of `tokens` scored tokens on one worker of `peak` FLOP/s."""
    return tokens / (share * peak / token_flops)


def measure(home: Path) -> dict[str, Any]:
    from bench.workloads import base_of
    from cli.local.demo_model import DEMO_MODEL
    from worker.engine.roofline import peak_flops

    base = base_of(DEMO_MODEL, home)
    peak = peak_flops("cpu", "float32", 2.0)
    token_flops = 2.0 * sum(i * o for _, i, o in base.modules)
    with service(base) as (stack, client):
        file = upload(client, 64)
        wait_for(stack, submit(client, base.name, file, 2, 2), lambda job: job.state == "succeeded", every=0.2)  # warm
        ids = []
        for number, (steps, batch) in enumerate(JOBS):
            with stack.sessions.begin() as session:
                owner = keys.create(session, f"tenant-{number}")
                _, key = keys.create_key(session, owner.id)
            theirs = OpenAI(base_url=stack.base_url, api_key=key)
            ids.append(submit(theirs, base.name, upload(theirs, 1000), steps, batch))
        for job_id in ids:
            wait_for(stack, job_id, lambda job: job.state == "succeeded", every=1.0)
        with stack.sessions.begin() as session:
            jobs = list(session.scalars(select(Job).where(Job.id.in_(ids))))
    tokens = sum(job.price_tokens for job in jobs)
    begun = min(job.started_at for job in jobs if job.started_at is not None)
    took = (max(job.finished_at for job in jobs if job.finished_at is not None) - begun).total_seconds()
    wanted = predicted_seconds(tokens, peak, token_flops)
    return {
        "jobs": len(jobs),
        "scored tokens": tokens,
        "peak FLOP/s": peak,
        "FLOP a token": token_flops,
        "share of the peak assumed": SHARE,
        "predicted seconds": wanted,
        "measured seconds": took,
        "measured over predicted": took / wanted,
        "share of the peak reached": tokens * token_flops / peak / took,
    }


def main() -> None:
    """Prints the figures and writes capacity.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=RESULTS / "capacity.json")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_PROC_BIND", "false")
    from worker.environment import prepare

    prepare(0, "bench.sections.capacity")
    from bench.report import table
    from bench.report.measure import machine

    found = measure(asked.home)
    print(*table.lines(found), sep="\n")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({**found, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
