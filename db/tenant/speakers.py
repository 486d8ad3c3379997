"""Who answers a chat: a tenant's name for a model, resolved to a base model and a committed step. Knows no engine.

Every function takes the tenant first. A name that is not its own, deleted, or of no job is an unknown name. What is
read of a name is one statement, so that it can be sent beside others; what follows from it is pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, and_, bindparam, func, or_, select

from db.contract.journal_row import replay_of
from db.ids import adapter_name, checkpoint_name, job_of, of_checkpoint, of_live, worn
from db.one_trip import Read
from db.tables import Adapter, Job, Lease, Point

STATES = {"validating_files": "being validated", "queued": "queued", "paused": "paused"}


@dataclass(frozen=True)
class Speaker:
    """A base model, and the adapter that it wears (`<job>@<step>`), if any. `name` is what repeats it exactly.
    `invocation` are the ids from which an adapter of activation `answer` acts. Of a live one `holder` is the worker
    that trains it."""

    base: str
    name: str
    wears: str | None = None
    invocation: tuple[int, ...] = ()
    holder: str | None = None


@dataclass(frozen=True)
class NotLive:
    """The job of a `…:live` trains no more, or not yet: `what` it is, its last step, and the name to use instead."""

    what: str
    step: int
    instead: str


@dataclass(frozen=True)
class NotKept:
    """A step of a job whose journal is not enough, and that was not kept whole; the `steps` that can be had."""

    step: int
    steps: tuple[int, ...]


Found = Speaker | NotLive | NotKept | None


@dataclass(frozen=True)
class _Named:
    """A job and what it published, if it has: `adapter`, at `published`, `deleted` or not. `points` are the steps that
    are kept whole."""

    job: str
    model: str
    state: str
    step: int
    spec: dict[str, Any] | None
    adapter: str | None
    published: int | None
    deleted: bool
    holder: str | None
    points: list[int]

    def kept(self) -> set[int] | None:
        """As `restorations.kept`."""
        if replay_of(self.spec) != "snapshots":
            return None
        return {0, *self.points, *([] if self.published is None else [self.published])}

    def called(self, tenant: str) -> str | None:
        """The adapter that it makes; None before its files are validated."""
        return None if self.spec is None else adapter_name(self.model, tenant, self.spec.get("suffix"), self.job)


def named(tenant: str, name: str) -> Read:
    """What `found` is of."""
    checkpoint = of_checkpoint(name)
    adapter = of_live(name) or (None if checkpoint is None else checkpoint[0])
    if adapter is not None:
        return _OF_JOB.with_(tenant=tenant, job=job_of(adapter))
    return _OF_ADAPTER.with_(tenant=tenant, name=name)


def found(tenant: str, name: str, rows: Sequence[Sequence[Any]]) -> Found:
    """Who is called `name`, of a tenant's own, as the rows of `named` say. None: nobody is."""
    of = next((_Named(*row) for row in rows), None)
    if of is None or of.deleted:
        return None
    if (adapter := of_live(name)) is not None:
        return _live(tenant, of, adapter)
    if (checkpoint := of_checkpoint(name)) is not None:
        return _at(tenant, of, name, *checkpoint)
    return None if of.adapter is None or of.published is None else _speaker(of, of.published, of.adapter)


def _at(tenant: str, of: _Named, name: str, adapter: str, step: int) -> Found:
    if step > of.step or of.called(tenant) != adapter:
        return None
    kept = of.kept()
    if kept is not None and step not in kept:
        return NotKept(step, tuple(sorted(kept)))
    return _speaker(of, step, name)


def _live(tenant: str, of: _Named, adapter: str) -> Found:
    if of.called(tenant) != adapter:
        return None
    step = _newest(of)
    if of.state != "running" or not step:
        return NotLive(_what(of), step, _instead(of, adapter, step))
    return _speaker(of, step, checkpoint_name(adapter, step), of.holder)


def _newest(of: _Named) -> int:
    """The newest step that can be had: the last committed one, or where no journal leads to it the last kept whole."""
    kept = of.kept()
    return of.step if kept is None else max((step for step in kept if step <= of.step), default=0)


def _what(of: _Named) -> str:
    if of.state == "running":
        return "at its beginning and has committed no step yet"
    return STATES.get(of.state, f"over ({of.state})")


def _instead(of: _Named, adapter: str, step: int) -> str:
    if of.adapter is not None:
        return of.adapter
    return checkpoint_name(adapter, step) if step else of.model


def _speaker(of: _Named, step: int, name: str, holder: str | None = None) -> Speaker:
    about = (of.spec or {})["adapter"]
    acts = tuple(about["invocation"]) if about.get("activation", "all") == "answer" else ()
    return Speaker(of.model, name, worn(of.job, step), acts, holder)


_TENANT = bindparam("tenant", type_=String)
_NAME = bindparam("name", type_=String)
_HOLDER = select(Lease.worker_id).where(Lease.job_id == Job.id, Lease.expires_at > func.clock_timestamp())
_POINTS = select(Point.step).where(Point.tenant_id == _TENANT, Point.job_id == Job.id, Point.number == 0)
_PUBLISHED = and_(Adapter.job_id == Job.id, Adapter.tenant_id == _TENANT)
_ROW = (
    select(
        Job.id, Job.model, Job.state, Job.step, Job.spec,
        Adapter.name, Adapter.step, Adapter.deleted_at.is_not(None),
        _HOLDER.scalar_subquery(), func.array(_POINTS.scalar_subquery()),
    )
    .outerjoin(Adapter, _PUBLISHED)
    .where(Job.tenant_id == _TENANT)
)  # fmt: skip
_OF_JOB = Read.of(_ROW.where(Job.id == bindparam("job", type_=String)))
_OF_ADAPTER = Read.of(_ROW.where(or_(Adapter.id == _NAME, Adapter.name == _NAME)))
