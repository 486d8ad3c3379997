"""The result files of a tenant's jobs, in their order. Knows no file's bytes."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import RESULT_KINDS, Adapter, File, Result


def of_jobs(tenant: str, session: Session, job_ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the files that these jobs of the tenant have left and still have: metrics, adapter, receipt. A job
    that an earlier release has published has its adapter alone."""
    ids = list(job_ids)
    there = File.tenant_id == tenant, File.deleted_at.is_(None)
    ours = select(Result.job_id, Result.kind, File.id).join(File, File.id == Result.file_id)
    theirs = select(Adapter.job_id, File.id).join(File, File.id == Adapter.file_id)
    found: dict[str, dict[str, str]] = {}
    for job_id, file_id in session.execute(theirs.where(Adapter.job_id.in_(ids), *there)):
        found.setdefault(job_id, {})["adapter"] = file_id
    for job_id, kind, file_id in session.execute(ours.where(Result.job_id.in_(ids), *there)):
        found.setdefault(job_id, {})[kind] = file_id
    return {job: [kinds[kind] for kind in RESULT_KINDS if kind in kinds] for job, kinds in found.items()}
