"""`model` may name an adapter to go on from, or a step of a job: the base model that it comes to, and what it fixes.

Knows no row of a file. A step that was never published is rebuilt first, as its hash belongs to the job's contract.
"""

import time
from dataclasses import replace
from typing import Any

from api import errors, missing
from api.context import Context
from api.errors import ApiError
from api.jobs.request import JobCreate
from api.restored import LOOK_SECONDS, looking
from db.contract.admit import Asked
from db.contract.spec import AdapterSpec, ParentSpec, stored
from db.tables import File
from db.tenant import parents
from db.tenant.restorations import Step

PATIENCE = 2.0  # seconds that a thread waits for a step; a client that tries again waits longer
LAID_OUT = ("rank", "alpha", "targets", "layers")


def resolved(wanted: Asked, body: JobCreate, tenant: str, context: Context) -> tuple[Asked, str]:
    """The request and its base model, with the parent and its layout where `body.model` names an adapter. Raises
    ApiError: 404 where there is none, 400 where the layout asked for is another, 409 where it is being rebuilt."""
    name = body.model
    if name in context.settings.models or not name.startswith(("ft:", "adpt-")):
        return wanted, name
    step = found(name, tenant, context)
    spec = stored(step.job.spec)
    if spec.method.replay == "snapshots":
        reason = "it followed from gradients, so that no journal leads to where the job would begin"
        raise errors.invalid(f"'{name}' cannot be gone on from: {reason}.", "model", "parent_not_replayable")
    if spec.model not in context.settings.models:
        raise missing.model(spec.model)
    text = step.job.request.get("invocation")
    fixed = laid_out(wanted, body, spec.adapter, text)
    parent = ParentSpec(job=step.job.id, step=step.step, sha256=hashed(name, step, tenant, context))
    values = {**wanted.values, **fixed, "parent": parent}
    return replace(wanted, values=values, activation=spec.adapter.activation, text=text), spec.model


def found(name: str, tenant: str, context: Context) -> Step:
    with context.transaction(tenant) as session:
        step = parents.named(tenant, session, name)
        if step is None and parents.was_deleted(tenant, session, name):
            raise missing.deleted_model(name, "model")
        return errors.found(step, missing.model(name))


def laid_out(wanted: Asked, body: JobCreate, adapter: AdapterSpec, text: str | None) -> dict[str, Any]:
    """The parent's layout. What was asked for beside it must be the same."""
    given: dict[str, Any] = {name: wanted.values.get(name) for name in LAID_OUT}
    given |= {"activation": body.onward.activation, "invocation": body.onward.invocation}
    theirs: dict[str, Any] = {name: getattr(adapter, name) for name in LAID_OUT} | {"layers": adapter.depth}
    for name, value in (theirs | {"activation": adapter.activation, "invocation": text}).items():
        asked = tuple(given[name]) if name == "targets" and given[name] is not None else given[name]
        if asked not in (None, "auto", value):
            shown = ", ".join(value) if isinstance(value, tuple) else value
            reason = (
                f"the adapter that the job goes on from has {shown if shown is not None else 'none'}: leave it out."
            )
            raise errors.invalid(
                f"Invalid value for '{wanted.path(name)}': {reason}", wanted.path(name), "other_layout"
            )
    return theirs


def hashed(name: str, step: Step, tenant: str, context: Context) -> str:
    """The SHA-256 of the step's adapter: the published one's, else of what a worker rebuilds."""
    if step.published is not None:
        return step.published.sha256
    look = looking(tenant, context, lambda session: parents.named(tenant, session, name), missing.model(name))
    ends = time.monotonic() + min(PATIENCE, context.settings.restore_wait_seconds)
    while isinstance(there := look(), ApiError):
        if time.monotonic() >= ends:
            raise there
        time.sleep(LOOK_SECONDS)
    assert not isinstance(there, File), "an adapter is published at its job's end"
    return str(there.sha256)
