"""Files as OpenAI's objects, and when they expire. Knows no route."""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel

from api import errors
from api.pagination import Entry
from db.ids import step_file
from db.tables import File, Restoration

SHORTEST: Final = 3600  # seconds that a file may expire after: an hour to thirty days, as OpenAI's
LONGEST: Final = 2_592_000


class FileObject(Entry):
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    onward: dict[str, Any]


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
    onward: dict[str, Any] | None = None  # of a result file: the adapter that went with it


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def view(file: File) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=epoch(file.created_at),
        filename=file.filename,
        purpose=file.purpose,
        expires_at=epoch(file.expires_at) if file.expires_at else None,
        onward={
            "format": file.format,
            "rows": file.rows,
            "repeated_rows": file.repeated_rows,
            "sha256": file.sha256,
        },
    )


def view_of_step(row: Restoration) -> FileObject:
    """The adapter of a job after some steps, which is kept until `expires_at`."""
    about = {"job": row.job_id, "step": row.step, "adapter_sha256": row.sha256}
    return FileObject(
        id=step_file(row.job_id, row.step),
        bytes=row.bytes,
        created_at=epoch(row.asked_at),
        filename=f"{row.job_id}-step-{row.step}.tar",
        purpose="fine-tune-results",
        expires_at=epoch(row.expires_at) if row.expires_at else None,
        onward=about,
    )


def expiry(anchor: object, seconds: object) -> int | None:
    """Seconds after its creation that a file expires; None: never. Raises ApiError 400."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise errors.invalid(
            "Invalid value for 'expires_after.anchor': it must be 'created_at'.", "expires_after.anchor"
        )
    digits = str(seconds)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and SHORTEST <= int(digits) <= LONGEST):
        message = f"Invalid value for 'expires_after.seconds': it must be a whole number from {SHORTEST} to {LONGEST}."
        raise errors.invalid(message, "expires_after.seconds", "invalid_value")
    return int(digits)
