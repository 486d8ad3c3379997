"""The thread that speaks to the store of files: what is to go from it goes, and one that was away is tried again.

Apart from the heartbeat, which must never wait for a store. Knows no lease and no run.
"""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import store_sweep
from db.store import seam
from db.store.opening import Stores
from db.store.seam import StoreAway
from worker.settings import WorkerSettings
from worker.slices.heartbeat import Heartbeat

log = structlog.get_logger("worker.slices.store_keeper")


class StoreKeeper(threading.Thread):
    """Every `sweep_seconds` a batch of objects that are to go; of several workers none does another's."""

    def __init__(
        self, factory: sessionmaker[Session], stores: Stores, settings: WorkerSettings, heartbeat: Heartbeat
    ) -> None:
        super().__init__(name="store", daemon=True)
        self._factory, self._stores, self._settings, self._heartbeat = factory, stores, settings, heartbeat
        self._ended = threading.Event()

    def stop(self) -> None:
        """It ends with the process where it waits for a store: what it has not done is another's."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(self._settings.sweep_seconds):
            self.turn()

    def turn(self) -> None:
        """What is due. Never raises for a store or a database that is away."""
        try:
            self._try_store()
            store_sweep.doomed(self._factory, self._stores)
            store_sweep.orphans(self._factory, self._stores, self._settings.orphan_hours)
        except StoreAway as error:
            log.warning("the store of files is away", error=str(error))
        except SQLAlchemyError as error:
            log.warning("the database refused", doing="store", error=str(error).partition("\n")[0])

    def _try_store(self) -> None:
        out = self._heartbeat.out
        if out is None or out.reason != "store":
            return
        if self._stores.writes is not None:
            seam.probe(self._stores.at(self._stores.writes))
        self._heartbeat.back("store")
