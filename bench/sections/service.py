"""What the service adds to the engine: its step time, the wait for a first step, the API under a long queue."""

import io
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from openai import OpenAI
from sqlalchemy import select

from bench.report.measure import spread
from cli.demo.datasets import write
from cli.local.processes import start, wait_ready
from cli.local.stack import Stack, running
from db.contract.tokens.base_model import Base
from db.tables import Job, JournalStep
from db.tenant import keys

UNSERVED = "unserved"


@contextmanager
def service(base: Base) -> Iterator[tuple[Stack, OpenAI]]:
    """The whole service in a temporary home, and a client of its one tenant. Raises RuntimeError where its processes do
    not have this process's cores: Intel's OpenMP binds a forked child to one core unless OMP_PROC_BIND is false."""
    with ExitStack() as started:
        home = Path(started.enter_context(tempfile.TemporaryDirectory()))
        stack = started.enter_context(running(home, {base.name: str(base.source)}, 0))
        for process in stack.processes:
            if (cores := os.sched_getaffinity(process.process.popen.pid)) != os.sched_getaffinity(0):
                raise RuntimeError(f"{process.name} is bound to cores {cores}: set OMP_PROC_BIND=false")
        with stack.sessions.begin() as session:
            tenant = keys.create(session, "bench", max_jobs=100_000)
            _, key = keys.create_key(session, tenant.id)
        yield stack, OpenAI(base_url=stack.base_url, api_key=key)


def upload(client: OpenAI, rows: int) -> str:
    """The id of an uploaded file with the first `rows` rows of the sentiment task."""
    with tempfile.TemporaryDirectory() as folder:
        lines = write(Path(folder))["sentiment_train"].read_bytes().splitlines(keepends=True)
    return client.files.create(file=("rows.jsonl", io.BytesIO(b"".join(lines[:rows]))), purpose="fine-tune").id


def submit(client: OpenAI, model: str, file: str, steps: int, batch: int) -> str:
    """A job like `bench.sections.replay.spec`'s."""
    job = {**spec_fields(steps, batch), "held_out": 0}
    return client.fine_tuning.jobs.create(model=model, training_file=file, seed=7, extra_body={"onward": job}).id


def spec_fields(steps: int, batch: int) -> dict[str, Any]:
    return {
        "method": "mezo",
        "rank": 8,
        "alpha": 16,
        "targets": ["q_proj", "v_proj"],
        "eps": 1e-2,
        "learning_rate": 1e-3,
        "batch_size": batch,
        "steps": steps,
    }


def wait_for(stack: Stack, job_id: str, reached: Callable[[Job], bool], every: float, seconds: float = 600) -> None:
    """Looks at the job's row `every` so many seconds: each look is work that the worker's cores do not do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with stack.sessions.begin() as session:
            job = session.get_one(Job, job_id)
            if reached(job):
                return
            if job.state in ("failed", "cancelled"):
                raise RuntimeError(f"{job_id}: {job.error}")
        time.sleep(every)
    raise TimeoutError(job_id)


def seconds_a_step(stack: Stack, client: OpenAI, model: str, file: str, steps: int) -> tuple[float, float]:
    """Of one job alone on the worker: wall-clock seconds from its first journal flush to its last, and the processor
    seconds of the whole worker process from submission to the end, both by steps."""
    (worker,) = [p.process.popen.pid for p in stack.processes if p.name.startswith("worker")]
    busy = processor_seconds(worker)
    job_id = submit(client, model, file, steps, 16)
    wait_for(stack, job_id, lambda job: job.state == "succeeded", every=1.0)
    busy = processor_seconds(worker) - busy
    with stack.sessions.begin() as session:
        rows = session.execute(
            select(JournalStep.created_at, JournalStep.step).where(JournalStep.job_id == job_id)
        ).all()
    flushes: dict[Any, int] = {}
    for at, step in rows:
        flushes[at] = max(step, flushes.get(at, -1))
    (first, s0), (last, s1) = min(flushes.items()), max(flushes.items())
    return float((last - first).total_seconds() / (s1 - s0)), busy / steps


def processor_seconds(pid: int) -> float:
    """User and system time of a process's threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def step_over_bare(
    stack: Stack, client: OpenAI, model: str, bare_steps: Callable[[int], None], rounds: int, steps: int
) -> dict[str, Any]:
    """Service and bare engine in turn, a job of `steps` steps each: medians of seconds a step, and their ratio round by
    round, in wall-clock and in processor time (which other work on the machine hardly moves)."""
    file = upload(client, 1000)
    served, bare, busy_served, busy_bare = [], [], [], []
    for _ in range(rounds):
        wall, busy = seconds_a_step(stack, client, model, file, steps)
        served.append(wall)
        busy_served.append(busy)
        busy, begun = time.process_time(), time.perf_counter()
        bare_steps(steps)
        bare.append((time.perf_counter() - begun) / steps)
        busy_bare.append((time.process_time() - busy) / steps)
    return {
        "service seconds a step": spread(served),
        "bare engine seconds a step": spread(bare),
        "service over bare": spread([a / b for a, b in zip(served, bare, strict=True)]),
        "service over bare, processor time": spread([a / b for a, b in zip(busy_served, busy_bare, strict=True)]),
    }


def post_to_first_step(stack: Stack, client: OpenAI, model: str, jobs: int) -> dict[str, float]:
    """Seconds from the POST to the first committed step, jobs of one small step on an idle warm worker."""
    file, seconds = upload(client, 64), []
    for number in range(jobs + 1):
        begun = time.perf_counter()
        job_id = submit(client, model, file, 1, 2)
        wait_for(stack, job_id, lambda job: job.step >= 1, every=0.01)
        if number:
            seconds.append(time.perf_counter() - begun)
        wait_for(stack, job_id, lambda job: job.state == "succeeded", every=0.1)
    return {**spread(seconds), "p95": float(np.percentile(seconds, 95))}


def api_under_load(stack: Stack, client: OpenAI, base: Base, jobs: int, threads: int = 4) -> dict[str, Any]:
    """Jobs submitted a second until `jobs` are queued for a model that no worker serves, then latencies of the API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        "ONWARD_HOME": str(stack.home),
        "ONWARD_DATABASE_URL": stack.urls.api_url,
        "ONWARD_REDIS_URL": stack.redis_url,
        "ONWARD_MODELS": json.dumps({UNSERVED: str(base.source)}),
        "ONWARD_PORT": str(port),
        "ONWARD_REQUESTS_A_MINUTE": "0",  # the load is wanted
        "ONWARD_JOBS_A_MINUTE": "0",
    }
    url = f"http://127.0.0.1:{port}"
    api = start("api-load", [sys.executable, "-m", "api"], env, stack.home / "logs")
    try:
        wait_ready(api, lambda: _up(url), 60, "starting an API for the load")
        file = upload(client, 64)
        headers = {"Authorization": f"Bearer {client.api_key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            body = {"model": UNSERVED, "training_file": file, "onward": spec_fields(100, 16)}
            begun = time.perf_counter()
            posts = _timed(threads, jobs, lambda: http.post("/v1/fine_tuning/jobs", json=body))
            took = time.perf_counter() - begun
            job_id = http.get("/v1/fine_tuning/jobs", params={"limit": 1}).json()["data"][0]["id"]
            reads = {
                "retrieve": lambda: http.get(f"/v1/fine_tuning/jobs/{job_id}"),
                "list 20": lambda: http.get("/v1/fine_tuning/jobs", params={"limit": 20}),
                "events": lambda: http.get(f"/v1/fine_tuning/jobs/{job_id}/events"),
                "submit": lambda: http.post("/v1/fine_tuning/jobs", json=body),
            }
            latencies = {name: _quantiles(_timed(threads, 400, call)) for name, call in reads.items()}
        return {
            "jobs submitted/s": jobs / took,
            "queued": jobs,
            "threads": threads,
            "while filling": _quantiles(posts),
            "seconds with the queue full": latencies,
        }
    finally:
        api.stop(10)


def _timed(threads: int, count: int, call: Callable[[], httpx.Response]) -> list[float]:
    def one(_: int) -> float:
        begun = time.perf_counter()
        call().raise_for_status()
        return time.perf_counter() - begun

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(count)))


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {"p50": float(np.percentile(seconds, 50)), "p99": float(np.percentile(seconds, 99)), "n": len(seconds)}


def _up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
