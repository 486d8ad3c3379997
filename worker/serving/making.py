"""An adapter made to be worn, from the database's bytes: as it was published, or replayed. Knows rows and a cache of
points; no engine, no request, and nothing is written."""

from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.orm import Session, sessionmaker

from db import files, security
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from db.deposits import Begin
from db.store.seam import ObjectLost, StoreAway
from db.worker import served
from db.worker.journal import NotWhole
from db.worker.served import Owned, Shown
from worker.adapters import base_files, peft_files, restored
from worker.adapters.restored import Gathered
from worker.adapters.snapshots import Snapshots
from worker.runs.rebuilding import usable
from worker.runs.replay import Point
from worker.serving import fit
from worker.serving.fit import Unfit
from worker.types import Layout, Params

log = structlog.get_logger("worker.serving.making")
AROUND = 1 << 20  # bytes of a PEFT directory that are no weights


class Unknown(LookupError):
    """There is no such adapter, or not any more: no job of this base with so many committed steps."""


@dataclass(frozen=True)
class Made:
    """An adapter that is fit to be worn, and the point it was replayed to, where it was."""

    layout: Layout
    params: Params
    point: Point | None = None


@dataclass(frozen=True)
class Maker:
    """Makes adapters of jobs on `base` of rank at most `max_rank`. The sessions of `factory` carry the stores of files.
    `snapshots` are points on this disk, which save replaying."""

    factory: sessionmaker[Session]
    base: Base
    max_rank: int
    snapshots: Snapshots

    def make(self, job_id: str, step: int, near: Point | None = None) -> Made:
        """The job's adapter after `step` committed steps, from `near` on where that helps, a point of the job's that is
        committed. May take minutes. Raises Unknown, Unfit, and SQLAlchemyError where the database does not answer."""
        with security.across(self.factory) as session:
            owned = served.owned(session, job_id)
        if owned is None or step > owned.step:
            raise Unknown(f"{job_id} has no step {step}")
        if owned.model != self.base.name:
            raise Unfit("base", f"it adapts {owned.model}, not {self.base.name}")
        if not owned.known:
            raise Unfit("spec", "its job was made by a newer release than this worker's")
        try:
            return self._made(owned, job_id, step, near)
        except NotWhole as error:
            raise Unknown(str(error)) from None

    def _made(self, owned: Owned, job_id: str, step: int, near: Point | None) -> Made:
        begin = partial(security.transaction, self.factory, owned.tenant_id)
        with begin() as session:
            shown = served.shown(session, job_id)
            spec = served.spec(session, job_id)
        if spec is None or (shown is not None and shown.deleted):
            raise Unknown(f"{job_id} has no adapter")
        layout = fit.layout(spec, self.base, self.max_rank)
        if shown is not None and shown.step == step:
            made = self._published(begin, owned.tenant_id, job_id, shown, spec, layout)
        elif near is not None and near.state.step == step:
            made = Made(layout, near.params, near)
        else:
            made = self._replayed(begin, job_id, step, layout, near)
        fit.sound(layout, made.params)
        return made

    def _published(self, begin: Begin, tenant: str, job_id: str, shown: Shown, spec: JobSpec, layout: Layout) -> Made:
        tar = self._read(tenant, begin, shown.file_id, 4 * layout.size + AROUND)
        if tar is None:  # what it was made of is there still
            made = self._replayed(begin, job_id, shown.step, layout)
            fit.same(shown.sha256, peft_files.weights(layout, made.params))
        else:
            made = Made(layout, fit.unpacked(tar, shown.sha256, spec, layout))
        self._on_base(tenant, begin, shown)
        return made

    def _replayed(self, begin: Begin, job_id: str, step: int, layout: Layout, near: Point | None = None) -> Made:
        with begin() as session:
            found = restored.gathered(session, job_id, step, self.base)
        try:
            point = restored.point(found, self.base, None if found.kept else self._start(found, near))
        except ValueError as error:
            raise Unfit("journal", str(error)) from None
        return Made(layout, point.params, point)

    def _start(self, found: Gathered, near: Point | None) -> Point | None:
        """The furthest point on the way there that is at hand."""
        history = found.history
        kind = restored.state(history, self.base)
        on_disk = self.snapshots.newest(found.job_id, history.spec, history.losses, kind, history.restarts)
        at_hand = [p for p in (on_disk, near) if p is not None]
        usables = [p for p in at_hand if p.state.step <= history.step and usable(history.restarts, p.state.step)]
        return max(usables, key=lambda p: p.state.step, default=None)

    def _read(self, tenant: str, begin: Begin, file_id: str, most: int) -> bytes | None:
        """The file's bytes, without a transaction while its store is waited for; None where they cannot be had. Raises
        Unfit for more than `most` of them."""
        data = bytearray()
        try:
            while piece := files.piece(tenant, begin, file_id, len(data), deleted=True):
                data += piece
                if len(data) > most:
                    raise Unfit("file", f"it is longer than {most} bytes: its spec leads to less")
        except (StoreAway, ObjectLost) as error:
            log.warning("not read, replayed", file=file_id, error=str(error))
            return None
        return bytes(data) or None

    def _on_base(self, tenant: str, begin: Begin, shown: Shown) -> None:
        if shown.receipt_id is None:
            return
        receipt = self._read(tenant, begin, shown.receipt_id, 64 << 20)
        if receipt is not None:
            fit.on_base(receipt, base_files.hashed(self.base.path))
