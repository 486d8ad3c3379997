"""Rows, states and constraints, a file for each kind. What must not be is refused here, whoever asks."""

from db.columns import Base
from db.tables.audit import Audit
from db.tables.files import File, FileChunk, TokenCount, Upload, UploadPart
from db.tables.jobs import ENDED, JOB_STATES, UNFINISHED, WAITING, Event, Job, Lease, Validation
from db.tables.journal import RESULT_KINDS, Adapter, Evaluation, JournalStep, Result
from db.tables.shares import Clock, Daily, Pruned, Share, Usage
from db.tables.tenants import KEY_SCOPES, ApiKey, Tenant
from db.tables.workers import Worker

__all__ = (
    "ENDED",
    "JOB_STATES",
    "KEY_SCOPES",
    "RESULT_KINDS",
    "UNFINISHED",
    "WAITING",
    "Adapter",
    "ApiKey",
    "Audit",
    "Base",
    "Clock",
    "Daily",
    "Evaluation",
    "Event",
    "File",
    "FileChunk",
    "Job",
    "JournalStep",
    "Lease",
    "Pruned",
    "Result",
    "Share",
    "Tenant",
    "TokenCount",
    "Upload",
    "UploadPart",
    "Usage",
    "Validation",
    "Worker",
)
