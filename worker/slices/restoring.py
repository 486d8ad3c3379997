"""The thread that rebuilds steps that tenants ask for, beside the slices. Knows journals, no engine and no lease.

It runs at the lowest priority, so that a step that is being scored has the processor first; it keeps nothing, and a
process that ends leaves to another what it was at.
"""

import os
import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import security
from db.contract.tokens.base_model import Base
from db.ids import adapter_name, checkpoint_name
from db.worker import journal, restorations
from db.worker.restorations import Asked
from worker.adapters import peft_files, restored
from worker.runs import recipes
from worker.settings import WorkerSettings
from worker.slices.ending import said

log = structlog.get_logger("worker.slices.restoring")
IDLEST = 19  # as nice has it


class Restorer(threading.Thread):
    """Rebuilds one step at a time when it is woken, and every `sweep_seconds`. `factory` should be the thread's own."""

    def __init__(self, factory: sessionmaker[Session], settings: WorkerSettings, base: Base, worker_id: str) -> None:
        super().__init__(name="restorer", daemon=True)
        self._factory, self._base, self._worker = factory, base, worker_id
        self._every = settings.sweep_seconds
        self._woken = threading.Event()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def run(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLEST)  # of this thread, as Linux has it
        except OSError as error:
            log.warning("cannot step back behind the slices", error=str(error))
        while True:
            self._woken.wait(self._every)
            self._woken.clear()
            try:
                while self.turn():
                    pass
            except SQLAlchemyError as error:
                log.warning("not restored", error=str(error).partition("\n")[0])

    def turn(self) -> bool:
        """Rebuild the next that is asked for; False where there is none. Raises SQLAlchemyError."""
        with security.across(self._factory) as session:
            found = restorations.waiting(session, self._base.name)
        for asked in found:
            with security.transaction(self._factory, asked.tenant_id) as session:
                mine = restorations.claim(session, asked, self._worker)
            if mine:
                self._restore(asked)
                return True
        return False

    def _restore(self, asked: Asked) -> None:
        try:
            sha256, tar = self._rebuilt(asked)
        except SQLAlchemyError:
            with security.transaction(self._factory, asked.tenant_id) as session:
                restorations.let_go(session, self._worker, asked)
            raise
        except Exception as error:
            self._refuse(asked, error)
            return
        with security.transaction(self._factory, asked.tenant_id) as session:
            kept = restorations.ready(session, asked, self._worker, sha256, tar)
        log.info("restored", job=asked.job_id, step=asked.step, sha256=sha256, kept=kept)

    def _rebuilt(self, asked: Asked) -> tuple[str, bytes]:
        with security.transaction(self._factory, asked.tenant_id) as session:
            found = restored.gathered(session, asked.job_id, asked.step, self._base)
        spec, point = found.history.spec, restored.point(found, self._base)
        name = checkpoint_name(adapter_name(spec.model, asked.tenant_id, spec.suffix, asked.job_id), asked.step)
        layout = recipes.layout(spec, self._base)
        files = peft_files.directory(spec.adapter, layout, point.params, spec.model, name, spec.method.autograd)
        return peft_files.sha256(files[peft_files.WEIGHTS]), peft_files.tar(files)

    def _refuse(self, asked: Asked, error: Exception) -> None:
        gone = isinstance(error, journal.NotWhole)
        code = "journal_gone" if gone else "internal_error"
        whole = isinstance(error, restored.NotKept)
        message = "its journal is not kept any more" if gone and not whole else said(error)
        log.error("cannot be restored", job=asked.job_id, step=asked.step, code=code, error=str(error))
        with security.transaction(self._factory, asked.tenant_id) as session:
            restorations.failed(session, asked, self._worker, code, message)
