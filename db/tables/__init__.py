"""Rows, states and constraints, a file for each kind. What must not be is refused here, whoever asks."""

from db.columns import Base
from db.tables.audit import Audit
from db.tables.files import Doomed, File, FileChunk, Installation, TokenCount, Upload, UploadPart
from db.tables.jobs import ENDED, JOB_STATES, UNFINISHED, WAITING, Event, Job, Lease, Validation
from db.tables.journal import RESULT_KINDS, Adapter, Evaluation, JournalStep, Result
from db.tables.points import Point
from db.tables.profiles import Profile
from db.tables.restorations import Restoration, RestoredChunk
from db.tables.served import Served, ServedDay
from db.tables.shares import Clock, Daily, Pruned, Share, Usage
from db.tables.tenants import KEY_SCOPES, RIGHTS, ApiKey, Tenant
from db.tables.workers import Worker

__all__ = (
    "ENDED",
    "JOB_STATES",
    "KEY_SCOPES",
    "RESULT_KINDS",
    "RIGHTS",
    "UNFINISHED",
    "WAITING",
    "Adapter",
    "ApiKey",
    "Audit",
    "Base",
    "Clock",
    "Daily",
    "Doomed",
    "Evaluation",
    "Event",
    "File",
    "FileChunk",
    "Installation",
    "Job",
    "JournalStep",
    "Lease",
    "Point",
    "Profile",
    "Pruned",
    "Restoration",
    "RestoredChunk",
    "Result",
    "Served",
    "ServedDay",
    "Share",
    "Tenant",
    "TokenCount",
    "Upload",
    "UploadPart",
    "Usage",
    "Validation",
    "Worker",
)
