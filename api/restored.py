"""Steps of a job by number: asked for and waited for. Knows no journal and no replay.

A worker of the base model rebuilds what is asked for. A request waits a while for it and then says, in an answer that
the openai client repeats by itself, that it is being rebuilt.
"""

import asyncio
import time
from collections.abc import Callable

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api import answers, errors, missing
from api.context import Context
from api.errors import ApiError
from db import files, queue, workers
from db.ids import of_step_file
from db.tables import File, Restoration
from db.tenant import restorations, storage
from db.tenant.restorations import Step

LOOK_SECONDS = 0.1
SOON, LATER = {"retry-after": "5"}, {"retry-after": "30"}


async def file(tenant: str, context: Context, file_id: str) -> File | Restoration | None:
    """The step that the file's id says, once it is there: the file that the job has published, or what was rebuilt.
    None for an id of another form. Raises ApiError: 404 where there is no such step, 409 where it takes longer."""
    parts = of_step_file(file_id)
    if parts is None:
        return None
    ends = time.monotonic() + context.settings.restore_wait_seconds
    look = looking(tenant, context, lambda session: restorations.find(tenant, session, *parts), missing.file(file_id))
    while isinstance(found := await run_in_threadpool(look), ApiError):
        if time.monotonic() >= ends:
            raise found
        await asyncio.sleep(LOOK_SECONDS)
    return found


def looking(
    tenant: str, context: Context, find: Callable[[Session], Step | None], otherwise: ApiError
) -> Callable[[], File | Restoration | ApiError]:
    """Looks for the step that `find` says each time it is called, and asks for it the first time: what there is, or
    what to say of a step that is not there yet. Raises ApiError, `otherwise` where there is no such step."""
    rung = False

    def look() -> File | Restoration | ApiError:
        nonlocal rung
        with context.transaction(tenant) as session:
            step = errors.found(find(session), otherwise)
            if step.published is not None:
                return errors.found(files.get(tenant, session, step.published.file_id), otherwise)
            had(tenant, session, step)
            row = restorations.get(tenant, session, step.job.id, step.step)
            if row is None or row.state == "failed":
                storage.check(tenant, session, 1, context.settings.max_tenant_bytes)
                row = restorations.ask(tenant, session, step)
            if row.state == "asked" and not rung:
                queue.ring_after_commit(session, queue.bell(step.job.model, step.job.autograd), context.ring)
                rung = True
            return row if row.state == "ready" else _told(session, step, row)

    return look


def had(tenant: str, session: Session, step: Step) -> None:
    """Raises ApiError 404 for a step that followed from gradients and is not kept: no journal leads to it."""
    kept = restorations.kept(tenant, session, step.job)
    if kept is None or step.step in kept:
        return
    known = ", ".join(map(str, sorted(kept)))
    message = (
        f"Step {step.step} of {step.job.id} cannot be rebuilt: it followed from gradients, which no journal has, "
        f"and is not kept. Steps that can be had: {known}."
    )
    raise ApiError(404, message, code="step_not_kept", headers=errors.FINAL)


def _told(session: Session, step: Step, row: Restoration) -> ApiError:
    """Raises it where waiting does not help."""
    what = f"Step {step.step} of {step.job.id}"
    if row.state == "failed":
        code, why = (row.error or {}).get("code"), (row.error or {}).get("message")
        status, kind = (404, answers.INVALID) if code == "journal_gone" else (500, "server_error")
        raise ApiError(status, f"{what} cannot be rebuilt: {why}.", kind=kind, code=code, headers=errors.FINAL)
    if not workers.serving(session, step.job.model):
        message = f"{what} is rebuilt once a worker of '{step.job.model}' is there: none is now. It was asked for."
        return ApiError(409, message, code="no_worker", headers=LATER)
    return ApiError(409, f"{what} is being rebuilt from its journal: try again.", code="being_rebuilt", headers=SOON)
