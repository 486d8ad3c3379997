"""/v1/models: the configured base models and the tenant's adapters, by the names a request gives them."""

from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api import errors, missing, restored
from api.auth import Tenant
from api.context import Context, Ctx
from api.files import epoch
from db.contract.journal_row import replay_of
from db.ids import step_file
from db.tables import Adapter, Job
from db.tenant import adapters, deletion, restorations
from db.tenant.restorations import Step

router = APIRouter(prefix="/v1/models", tags=["models"])
MOST = 10_000  # adapters in the list, newest first: OpenAI's has no pages


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    onward: dict[str, Any]


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


def base(name: str, context: Context) -> ModelObject:
    """`created` is when the folder was written, 0 for a model of the hub."""
    folder = Path(context.settings.models[name]).expanduser()
    created = int(folder.stat().st_mtime) if folder.is_dir() else 0
    return ModelObject(id=name, created=created, owned_by="onward", onward={"kind": "base"})


def adapter(row: Adapter, of: Job) -> ModelObject:
    """With `activation`, and of `answer` the token ids that switch the adapter on and their text. `replay` says what it
    is rebuilt from: its `journal`, or nothing but the `snapshots` of a run that followed from gradients."""
    about = {"kind": "adapter", "id": row.id, "job": row.job_id, "step": row.step, "sha256": row.sha256}
    acts = of.spec["adapter"].get("activation", "all")
    about |= {"activation": acts, "replay": replay_of(of.spec)}
    if acts == "answer":
        about |= {"invocation": of.request.get("invocation"), "invocation_tokens": of.spec["adapter"]["invocation"]}
    return ModelObject(
        id=row.name, created=epoch(row.created_at), owned_by=row.tenant_id, onward=about | {"file": row.file_id}
    )


def checkpoint(name: str, of: Step) -> ModelObject:
    """A step of a job by its name: `file` is where its adapter is fetched, rebuilt then from the journal."""
    about = {"kind": "checkpoint", "job": of.job.id, "step": of.step, "file": step_file(of.job.id, of.step)}
    if of.published is not None:
        about |= {"sha256": of.published.sha256}
    created = of.adapter.created_at if of.adapter is not None else of.job.started_at or of.job.created_at
    return ModelObject(id=name, created=epoch(created), owned_by=of.job.tenant_id, onward=about)


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
    onward: dict[str, Any]


@router.get("")
def list_models(tenant: Tenant, context: Ctx) -> Models:
    with context.transaction(tenant.id) as session:
        found, _ = adapters.page(tenant.id, session, after=None, limit=MOST)
        makers = adapters.makers(tenant.id, session, found)
        bases = [base(name, context) for name in sorted(context.settings.models)]
        return Models(data=[*bases, *(adapter(row, makers[row.job_id]) for row in found)])


@router.get("/{name:path}")
def retrieve(name: str, tenant: Tenant, context: Ctx) -> ModelObject:
    if name in context.settings.models:
        return base(name, context)
    with context.transaction(tenant.id) as session:
        if (step := restorations.named(tenant.id, session, name)) is not None:
            restored.had(tenant.id, session, step)
            return checkpoint(name, step)
        row = errors.found(adapters.get(tenant.id, session, name), missing.model(name))
        return adapter(row, adapters.makers(tenant.id, session, [row])[row.job_id])


@router.delete("/{name:path}")
def delete(name: str, tenant: Tenant, context: Ctx) -> ModelDeleted:
    """The adapter goes with its result files, what was rebuilt of its job's steps, and its folders on the workers'
    disks; the job stays, and says so. Base models are the operator's, and a step is the journal's."""
    if name in context.settings.models:
        raise errors.ApiError(403, f"'{name}' is a base model: it is not yours to delete.", code="permission_denied")
    with context.transaction(tenant.id) as session:
        if (step := restorations.named(tenant.id, session, name)) is not None:
            raise errors.ApiError(403, kept(name, step), code="permission_denied")
        row = errors.found(deletion.adapter(tenant.id, session, name), missing.model(name))
        return ModelDeleted(id=row.name, onward={"id": row.id, "job": row.job_id, "file": row.file_id})


def kept(name: str, step: Step) -> str:
    """Why a step cannot be deleted by itself."""
    whole = "its job's journal goes in time" if step.adapter is None else f"delete '{step.adapter.name}', and all go"
    return f"'{name}' stores nothing: it is a step in the journal of {step.job.id}, which has all of them; {whole}."
