"""Counts, outside of requests, the files of jobs that are being validated, and decides them. Knows no route.

The rows in the database say what there is to do (`db/tenant/validations.py`): a process that ends, in order or not,
leaves its jobs to itself at its next start or to another.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from fastapi.concurrency import run_in_threadpool

from api.context import Context
from api.errors import ApiError
from api.jobs import admission
from api.jobs.admission import Prepared
from db import audit, queue, security
from db.contract.admit import Admitted
from db.contract.refusal import Refusal
from db.contract.rows.jsonl import BadRow
from db.tables import Job
from db.tenant import validations

log = structlog.get_logger("api.jobs.validating")
T = TypeVar("T")
ACTOR = "api"  # acts where no key does
LOOK_SECONDS = 0.2  # how often it looks whether it is woken, or the process ends


@dataclass(frozen=True)
class Claim:
    """A job that this process counts for, and what proves it."""

    job: Job
    holder: str

    @property
    def place(self) -> tuple[str, str]:
        return self.job.tenant_id, self.job.id


class Validator:
    """One thread of a process, with a loop of its own; begun by the first `wake`."""

    def __init__(self, context: Context, tidy: Callable[[], None]) -> None:
        self._context, self._tidy = context, tidy
        self._woken, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._tallies: dict[str, Prepared] = {}  # by job, what is being counted

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=lambda: asyncio.run(self._go_on()), daemon=True)
                self._thread.start()

    def join(self, seconds: float) -> None:
        """Waits, once the process ends, until nothing is counted any more; `seconds` at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    async def _go_on(self) -> None:
        context = self._context
        while not context.ending.is_set():
            self._woken.clear()
            with audit.acting(ACTOR):
                await self._look()
            waited = 0.0
            while waited < context.settings.sweep_seconds and not (context.ending.is_set() or self._woken.is_set()):
                await asyncio.sleep(LOOK_SECONDS)
                waited += LOOK_SECONDS
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> None:
        """Claims as many jobs as there is room for, and tidies up. What the database refuses is for later."""
        try:
            for claim in await run_in_threadpool(
                self._claimed, self._context.settings.counts_outside - len(self._tasks)
            ):
                task = asyncio.create_task(self._decide(claim))
                self._tasks[claim.job.id] = task
                task.add_done_callback(functools.partial(self._done, claim.job.id))
            await run_in_threadpool(self._tidy)
        except Exception as error:
            log.warning("validation is put off", error=repr(error))

    def _done(self, job_id: str, _: "asyncio.Task[None]") -> None:
        self._tasks.pop(job_id, None)
        self._woken.set()  # there is room

    def _claimed(self, room: int) -> list[Claim]:
        context = self._context
        found: list[Claim] = []
        if room <= 0:
            return []
        with security.across(context.sessions) as session:
            due = validations.due(session, sorted(context.settings.models), room)
        for tenant, job_id in due:
            with context.transaction(tenant) as session:
                claimed = validations.claim(tenant, session, job_id, context.settings.lease_seconds)
            if claimed is None:
                continue
            job, holder, before = claimed
            if before >= context.settings.max_attempts:
                text = f"The files could not be validated: {before} processes ended while they counted them."
                self._refuse(Claim(job, holder), Refusal("training_file", text, "server_error"))
            else:
                found.append(Claim(job, holder))
        return found

    async def _decide(self, claim: Claim) -> None:
        """Counts and decides one job, for as long as the claim on it holds."""
        counting = asyncio.ensure_future(self._count(claim))
        try:
            await self._kept(claim, counting)
        except asyncio.CancelledError:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
            with contextlib.suppress(Exception):  # it runs out by itself
                await asyncio.shield(run_in_threadpool(self._release, claim))
            raise
        except Exception as error:  # its claim runs out, and it is tried again, a few times
            log.error("validation failed", job=claim.job.id, error=repr(error))

    async def _kept(self, claim: Claim, counting: "asyncio.Future[None]") -> None:
        """Renews the claim until the count is done; where it is lost nobody wants the count."""
        seconds = self._context.settings.lease_seconds
        while not (await asyncio.wait({counting}, timeout=seconds / 5))[0]:
            if not await run_in_threadpool(self._renew, claim):
                counting.cancel()
                await asyncio.gather(counting, return_exceptions=True)
                return
        counting.result()

    async def _count(self, claim: Claim) -> None:
        async def attend(work: Coroutine[Any, Any, T]) -> T:
            return await work

        try:
            prepared = await run_in_threadpool(admission.again, claim.job, self._context, attend)
            self._tallies[claim.job.id] = prepared
            decision = prepared.decided(await prepared.readings())
        except BadRow as error:
            decision = Refusal("training_file", str(error), "invalid_file_format")
        except ApiError as error:
            decision = Refusal(error.param or "training_file", error.message, error.code or "invalid_value")
        finally:
            self._tallies.pop(claim.job.id, None)
        if isinstance(decision, Refusal):
            await run_in_threadpool(self._refuse, claim, decision)
        else:
            await run_in_threadpool(self._queue, claim, decision)

    def _queue(self, claim: Claim, admitted: Admitted) -> None:
        tenant, job_id = claim.place
        with self._context.transaction(tenant) as session:
            job = validations.admit(tenant, session, job_id, claim.holder, admitted)
            if job is not None and job.state == "queued":
                queue.ring_after_commit(session, queue.bell(job.model, job.autograd), self._context.ring)
        if job is not None:
            log.info("validated", job=job.id, state=job.state, tokens=job.price_tokens)

    def _refuse(self, claim: Claim, why: Refusal) -> None:
        tenant, job_id = claim.place
        with self._context.transaction(tenant) as session:
            validations.refuse(tenant, session, job_id, claim.holder, why)
        log.info("validated", job=job_id, state="failed", code=why.code)

    def _renew(self, claim: Claim) -> bool:
        tenant, job_id = claim.place
        prepared = self._tallies.get(job_id)
        rows = sum(source.tally.rows for source in prepared.sources) if prepared is not None else 0
        with self._context.transaction(tenant) as session:
            return validations.renew(tenant, session, job_id, claim.holder, rows, self._context.settings.lease_seconds)

    def _release(self, claim: Claim) -> None:
        tenant, job_id = claim.place
        with self._context.transaction(tenant) as session:
            validations.release(tenant, session, job_id, claim.holder)
