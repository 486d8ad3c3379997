"""What is done to a fleet, one function a kind; each ends by itself and leaves the fleet whole. Knows no plan."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from sqlalchemy import func, select, text

from db import queue
from db.tables import Lease
from db.tables import Worker as WorkerRow
from tests.chaos.fleet import LEASE, Fleet, Post
from tests.service.processes import Process
from tests.waiting import until

DOORBELLS = 20
AWAY = 2.0  # seconds without a step after which nothing will come of waiting any longer
CUT = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'onward' AND pid <> pg_backend_pid() AND state <> 'idle'"
)
Progress = Callable[[], int | None]  # steps committed; None where the database does not say


def kill_worker(fleet: Fleet, post: Post, progress: Progress) -> None:
    fleet.dismiss(post)
    fleet.hire(post)


def freeze_worker(fleet: Fleet, post: Post, progress: Progress) -> None:
    """SIGSTOP while it has a lease, where it gets one soon, until all it had are over; then SIGCONT: what it wrote
    meanwhile is for the database to refuse."""
    worker = _working(fleet, post)
    ends = time.monotonic() + AWAY + LEASE
    while not _leases(fleet, worker) and time.monotonic() < ends:
        time.sleep(0.01)
    worker.send(signal.SIGSTOP)
    worker.stopped()
    try:
        until(lambda: _leases(fleet, worker) == 0, "its leases are over")
    finally:
        worker.send(signal.SIGCONT)


def end_worker(fleet: Fleet, post: Post, progress: Progress) -> None:
    worker = _working(fleet, post)
    worker.send(signal.SIGTERM)
    status = worker.died()
    post.process = None
    if status != 0:
        post.ended.append((status, worker.log))
    fleet.hire(post)


def fail_after_scoring(fleet: Fleet, post: Post, progress: Progress) -> None:
    _doomed(fleet, post, "after_score:7", progress)


def fail_before_the_end(fleet: Fleet, post: Post, progress: Progress) -> None:
    _doomed(fleet, post, "before_finish", progress)


def fill_disk(fleet: Fleet, post: Post, progress: Progress) -> None:
    """A worker that can write nothing any more, until something could have been published, or it has ended."""
    with small_disk(fleet.home / "full") as (home, fill):
        fleet.dismiss(post)
        worker = fleet.hire(post, ONWARD_HOME=str(home))
        _working(fleet, post)
        fill()
        _while(progress, 60, lambda: worker.alive)
        fleet.dismiss(post)
    fleet.hire(post)


def kill_postgres(fleet: Fleet, post: Post, progress: Progress) -> None:
    with fleet.outage():
        fleet.embedded.kill_postgres()
        fleet.embedded.restart_postgres()


def restart_postgres(fleet: Fleet, post: Post, progress: Progress) -> None:
    with fleet.outage():
        fleet.embedded.restart_postgres()


def cut_connections(fleet: Fleet, post: Post, progress: Progress) -> None:
    """Every session that is in a transaction, as soon as there is one."""
    with fleet.outage():
        tries = iter(range(200))
        until(lambda: fleet.admin(lambda session: session.scalar(CUT)) or next(tries, None) is None, "a session is cut")


def kill_valkey(fleet: Fleet, post: Post, progress: Progress) -> None:
    fleet.embedded.valkey.kill()
    fleet.embedded.restart_valkey()


def flush_valkey(fleet: Fleet, post: Post, progress: Progress) -> None:
    with redis.Redis.from_url(fleet.redis_url) as client:
        client.flushall()


def lose_valkey(fleet: Fleet, post: Post, progress: Progress) -> None:
    """Away until the workers have made some steps without it, or make none; then back without what it held."""
    fleet.embedded.valkey.kill()
    _while(progress, 30, lambda: True)
    fleet.embedded.restart_valkey(flush=True)


def double_doorbells(fleet: Fleet, post: Post, progress: Progress) -> None:
    ring = queue.ringer(queue.celery_app(fleet.redis_url))
    for _ in range(DOORBELLS):
        ring(post.model)


def drop_doorbells(fleet: Fleet, post: Post, progress: Progress) -> None:
    with redis.Redis.from_url(fleet.redis_url) as client:
        client.delete(queue.queue_name(post.model))


def kill_api(fleet: Fleet, post: Post, progress: Progress) -> None:
    fleet.kill_api()


DO: dict[str, Callable[[Fleet, Post, Progress], None]] = {
    "worker killed": kill_worker,
    "worker frozen past its lease": freeze_worker,
    "worker told to end": end_worker,
    "worker dies after scoring": fail_after_scoring,
    "worker dies before its end is written": fail_before_the_end,
    "disk full": fill_disk,
    "postgres killed": kill_postgres,
    "postgres restarted": restart_postgres,
    "connections cut in mid-transaction": cut_connections,
    "valkey killed": kill_valkey,
    "valkey flushed": flush_valkey,
    "valkey away": lose_valkey,
    "doorbells doubled": double_doorbells,
    "doorbells dropped": drop_doorbells,
    "api killed": kill_api,
}


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A home, and what makes it one on which nothing more can be stored: a small file system that fills up where this
    process may mount one, else files in the place of `adapters` and `snapshots`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = not subprocess.run(mount, capture_output=True).returncode

    def fill() -> None:
        if mounted:
            with suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
            return
        for name in ("adapters", "snapshots"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).write_bytes(b"")

    try:
        yield folder, fill
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def _leases(fleet: Fleet, worker: Process) -> int | None:
    """How many leases in force it has; None where the database does not say."""
    held = select(func.count()).select_from(Lease).join(WorkerRow, WorkerRow.id == Lease.worker_id)
    mine = held.where(WorkerRow.pid == worker.pid, Lease.expires_at > func.clock_timestamp())
    return fleet.answered(lambda session: session.scalar(mine))


def _working(fleet: Fleet, post: Post) -> Process:
    """The post's worker, once it serves: one that still loads holds nothing."""

    def ready() -> Process | None:
        fleet.tend()
        return post.process if post.process is not None and post.process.lines("ready") else None

    worker = until(ready, f"a worker of {post.model} serves")
    assert worker is not None
    return worker


def _doomed(fleet: Fleet, post: Post, fault: str, progress: Progress) -> None:
    """A worker that dies at a failpoint, or is dismissed where it finds nothing to die of."""
    fleet.dismiss(post)
    worker = fleet.hire(post, ONWARD_FAULT=fault)
    _while(progress, 120, lambda: worker.alive)
    fleet.dismiss(post)
    fleet.hire(post)


def _while(progress: Progress, steps: int, goes_on: Callable[[], bool]) -> None:
    """Until so many more steps are committed; no longer than `goes_on`, nor than steps are taken at all."""
    first = last = progress() or 0
    since = time.monotonic()
    while goes_on() and last < first + steps and time.monotonic() - since < AWAY + LEASE:
        now = progress()
        if now is not None and now > last:
            last, since = now, time.monotonic()
        time.sleep(0.05)
