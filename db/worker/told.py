"""What a receipt tells of the jobs that an adapter follows from, read from their rows. Knows no file's bytes."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.contract.history import History
from db.contract.receipts.form import Told
from db.tables import File
from db.worker import journal


def told(session: Session, job_id: str, step: int) -> tuple[Told, ...]:
    """The job up to `step`, and those that it goes on from. Raises LookupError where a journal, or the row of a file,
    is not there any more."""
    found: list[Told] = []
    history: History | None = journal.history(session, job_id, step)
    while history is not None:
        spec = history.spec
        training, validation = _sha256(session, spec.training_file), None
        if spec.validation_file is not None:
            validation = _sha256(session, spec.validation_file)
        found.append(Told(job_id, history, training, validation))
        job_id, history = spec.parent.job if spec.parent is not None else "", history.parent
    return tuple(found)


def _sha256(session: Session, file_id: str) -> str:
    """Of a file, deleted or not."""
    found = session.scalar(select(File.sha256).where(File.id == file_id))
    if found is None:
        raise LookupError(f"there is no file {file_id}")
    return found
