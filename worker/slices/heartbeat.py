"""The thread that speaks to the database while the main thread is inside the engine: heartbeat, leases, wishes, sweep.

Knows claims and times, nothing of runs. Flags it sets are read by the main thread at every step."""

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import audit, outlook, queue, security, workers
from db.retention import Keep, prune
from db.sweep import sweep
from db.transitions import Wish
from db.worker import leases
from db.worker.leases import Claim
from worker import metrics
from worker.adapters import disk
from worker.settings import WorkerSettings
from worker.slices.ending import Out, Reason
from worker.slices.persist import UNREACHABLE
from worker.slices.tidy import Tidy

log = structlog.get_logger("worker.slices.heartbeat")


class Heartbeat(threading.Thread):
    """Renews every held claim each third of a lease, and looks for wishes, sweeps and beats in their own rhythms.

    A database that cannot be reached is logged and tried again at the next turn: whether a lease survived that is for
    the database to say. `factory` should be the thread's own, with a connection no one else waits for.
    """

    def __init__(
        self, factory: sessionmaker[Session], settings: WorkerSettings, worker_id: str, ring: Callable[[str], None]
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._factory, self._settings, self._worker, self._ring = factory, settings, worker_id, ring
        self._tidy = Tidy(settings.home / "adapters")
        self._lock = threading.Lock()
        self._held: dict[str, Claim] = {}
        self._until: dict[str, float] = {}
        self._lost: set[str] = set()
        self._wishes: dict[str, Wish] = {}
        self._rhythm: list[tuple[float, Callable[[], None]]] = [
            (settings.wish_seconds, self.look_for_wishes),
            (settings.lease_seconds / 3, self.renew),
            (settings.heartbeat_seconds, self.beat),
            (settings.sweep_seconds, self.sweep),
        ]
        self._due = [0.0] * len(self._rhythm)
        self._ended = threading.Event()
        self._down = False
        self._disk_due = 0.0
        self.draining = threading.Event()
        self.out: Out | None = None  # why no slice is to be taken now
        self.rate: Callable[[], float | None] = lambda: None  # scored tokens a second, once a scorer tells
        self.serving: Callable[[], dict[str, Any] | None] = lambda: None  # what is served here and where, once it is
        self.deleted: Callable[[str], None] = lambda _: None  # a job whose adapter its tenant has deleted

    def hold(self, claim: Claim, claimed_at: float) -> None:
        """Keep `claim` alive from now on; `claimed_at` is time.monotonic() just before it was claimed."""
        with self._lock:
            self._held[claim.job_id] = claim
            self._until[claim.job_id] = claimed_at + self._settings.lease_seconds
            self._lost.discard(claim.job_id)
            self._wishes.pop(claim.job_id, None)

    def drop(self, job_id: str) -> None:
        """Renew it no more. Unknown ids are no error."""
        with self._lock:
            self._held.pop(job_id, None)
            self._until.pop(job_id, None)
            self._lost.discard(job_id)
            self._wishes.pop(job_id, None)

    def drop_all(self) -> None:
        """Renew nothing any more: no slice is under way."""
        for claim in self._claims():
            self.drop(claim.job_id)

    def leave_service(self, out: Out) -> None:
        """No slice is to be taken from now on; the next beat says so."""
        self.out = out
        metrics.out_of_service.labels(self._settings.model, out.reason).set(1)
        log.error("out of service", reason=out.reason, error=out.message)

    def lost(self, job_id: str) -> bool:
        """The database says that the lease is another's."""
        with self._lock:
            return job_id in self._lost

    def wish(self, job_id: str) -> Wish | None:
        """What the tenant asked of the job since it was claimed."""
        with self._lock:
            return self._wishes.get(job_id)

    def until(self, job_id: str) -> float:
        """time.monotonic() up to which the lease is surely ours; the past for a claim that is not held."""
        with self._lock:
            return self._until.get(job_id, 0.0)

    def stop(self) -> None:
        """End the thread and wait for it, at most a few seconds."""
        self._ended.set()
        self.join(timeout=5.0)

    def run(self) -> None:
        while not self._ended.wait(min(every for every, _ in self._rhythm) / 2):
            self.turn(time.monotonic())

    def turn(self, now: float) -> None:
        """Do what is due at `now` (time.monotonic()). Never raises for a database that is away."""
        if self.out is not None and self.out.reason == "disk" and now >= self._disk_due:
            self._disk_due = now + self._settings.disk_seconds
            self._try(self.try_disk)
        for i, (every, act) in enumerate(self._rhythm):
            if now >= self._due[i]:
                self._due[i] = now + every
                self._try(act)

    def renew(self) -> None:
        """Extend every lease that is held; those that the database does not know as ours are lost."""
        claims, before = self._claims(), time.monotonic()
        if not claims:
            return
        with security.across(self._factory) as session:
            still = leases.renew(session, claims, self._settings.lease_seconds)
        with self._lock:
            for claim in claims:
                if self._held.get(claim.job_id) != claim:  # dropped, or claimed anew, in the meantime
                    continue
                if claim.job_id in still:
                    self._until[claim.job_id] = before + self._settings.lease_seconds
                else:
                    self._lost.add(claim.job_id)

    def look_for_wishes(self) -> None:
        """Ask what the tenants wish of the jobs that are held."""
        claims = self._claims()
        if not claims:
            return
        with security.across(self._factory) as session:
            wishes = leases.wishes(session, claims)
        with self._lock:
            for claim in claims:
                wish = wishes.get(claim.job_id)
                if wish is not None and self._held.get(claim.job_id) == claim:
                    self._wishes[claim.job_id] = wish

    def beat(self) -> None:
        """Say that this worker lives, and that it drains where it does."""
        out = self.out
        with self._factory.begin() as session:
            if out is not None and not self.draining.is_set():
                workers.out(session, self._worker, f"{out.reason}: {out.message}")
            else:
                state: workers.State | None = "draining" if self.draining.is_set() else None
                workers.beat(session, self._worker, state=state, rate=self.rate(), serving=self.serving())

    def look_at_disk(self) -> None:
        """Out of service from the start where the home cannot be written: better said now than by a job's end."""
        try:
            disk.try_out(self._settings.home)
        except OSError as error:
            self.leave_service(Out("disk", str(error)))

    def try_disk(self) -> None:
        """Back to service where the disk, which was the reason to leave it, works again."""
        try:
            disk.try_out(self._settings.home)
        except OSError as error:
            log.warning("the disk still fails", error=str(error))
            return
        self.back("disk")

    def back(self, reason: Reason) -> None:
        """Back to service, where this was the reason to leave it."""
        if self.out is None or self.out.reason != reason:
            return
        with self._factory.begin() as session:
            workers.back(session, self._worker)
        self.out = None
        metrics.out_of_service.labels(self._settings.model, reason).set(0)
        log.info("back in service")
        for bell in queue.bells(self._settings.model, workers.kinds(self._settings.takes)):
            self._ring(bell)

    def sweep(self) -> None:
        """Ring for work that nobody holds, note how the model goes, drop what has been kept long enough, and remove
        from this disk what tenants have deleted."""
        own = self._settings
        keep = Keep(own.keep_events_days, own.keep_journal_days, own.keep_usage_days, own.keep_workers_days)
        due: list[str] = []
        with security.across(self._factory) as session:
            outlook.note(session, own.model, own.cohort, own.slice_seconds)
            gone = self._tidy.gone(session)
            sweep(session, due.append, own.sweep_seconds)  # last: it locks a job's row
        for model in due:  # not before: a slow broker would keep the row locked before those who claim it
            self._ring(model)
        with security.forgetting(self._factory) as session:
            prune(session, keep)
            audit.prune(session, own.audit_days)
        self._tidy.remove(gone)
        for job_id in gone:
            self.deleted(job_id)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
            self._down = False
        except SQLAlchemyError as error:
            if not self._down:  # one line an outage, not one a turn
                what = "database unreachable" if isinstance(error, UNREACHABLE) else "the database refused"
                log.warning(what, doing=act.__name__, error=str(error).partition("\n")[0])
            self._down = True

    def _claims(self) -> list[Claim]:
        with self._lock:
            return list(self._held.values())
