"""The receipt of what is published: from the rows, the base's files and the installation's key. Knows no step."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from db.contract.receipts.signing import WrongKey, public_of
from db.worker.journal import Published
from db.worker.told import told
from worker.adapters import base_files, receipt
from worker.settings import WorkerSettings
from worker.types import CannotCompute

log = structlog.get_logger("worker.slices.receipts")


@dataclass(frozen=True)
class Receipts:
    """`about` is what the engine says of itself, `secret` the private key that receipts are signed with, if any."""

    about: Mapping[str, Any] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)

    def prepare(self, base: Path) -> None:
        """Read the base's files once, beside the slices: they may be many gigabytes."""
        threading.Thread(target=self.ready, args=(base,), name="base-hash", daemon=True).start()

    def ready(self, base: Path) -> None:
        """Returns once they are read; where they cannot be, with a line in the log."""
        try:
            base_files.hashed(base)
        except OSError as error:
            log.warning("the base's files cannot be read: no receipts", error=str(error))

    def issue(self, session: Session, job_id: str, base: Path, made: Published) -> bytes | None:
        """receipt.json of what was published; None, with a line in the log, where something that it tells of is gone:
        an adapter is not worth less without. Raises what the database does."""
        try:
            jobs = told(session, job_id, made.step)
            return receipt.issued(made.name, made.sha256, base_files.hashed(base), jobs, self.about, self.secret)
        except (OSError, LookupError, ValueError) as error:
            log.warning("no receipt", job=job_id, error=str(error))
            return None


def key_of(settings: WorkerSettings) -> str | None:
    """What receipts are signed with. Raises CannotCompute, before anything is loaded, for what is no key."""
    secret = settings.receipt_key.get_secret_value().strip() if settings.receipt_key is not None else ""
    try:
        public = public_of(secret) if secret else None
    except WrongKey as error:
        raise CannotCompute(f"ONWARD_RECEIPT_KEY: {error}") from None
    log.info("receipts are unsigned" if public is None else "receipts are signed", public=public)
    return secret or None
