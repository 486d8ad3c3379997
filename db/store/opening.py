"""The stores of a process: the one that new files go to, and any that a row names. Knows settings, no row."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session, sessionmaker

from db.settings import Settings
from db.store.folder import Folder
from db.store.seam import Store, StoreAway

DATABASE: Final = "database"
INFO: Final = "stores"  # under which a session carries them


@dataclass
class Guarded:
    """A store that, once it was away, is left alone for `seconds`: who asks meanwhile is told at once, and keeps no
    thread and no connection waiting."""

    store: Store
    seconds: float
    _until: float = 0.0

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        with self._tried():
            self.store.put(key, pieces)

    def read(self, key: str, start: int, length: int) -> bytes:
        with self._tried():
            return self.store.read(key, start, length)

    def delete(self, key: str) -> None:
        with self._tried():
            self.store.delete(key)

    def keys(self, older: float) -> Iterator[str]:
        with self._tried():
            yield from self.store.keys(older)

    @contextmanager
    def _tried(self) -> Iterator[None]:
        left = self._until - time.monotonic()
        if left > 0:
            raise StoreAway("it did not answer a moment ago", left)
        try:
            yield
        except StoreAway as error:
            self._until, error.seconds = time.monotonic() + self.seconds, self.seconds
            raise


@dataclass
class Stores:
    """By name, as rows keep it; each is opened when it is first asked for. `writes` is where new files go."""

    settings: Settings = field(repr=False)
    _open: dict[str, Store] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def writes(self) -> str | None:
        """None for the database."""
        return None if self.settings.file_store == DATABASE else self.settings.file_store

    def at(self, name: str) -> Store:
        """Raises StoreAway for what this release cannot open."""
        with self._lock:
            if name not in self._open:
                self._open[name] = Guarded(_opened(name, self.settings), self.settings.store_retry_seconds)
            return self._open[name]


def _opened(name: str, settings: Settings) -> Store:
    scheme, _, rest = name.partition("://")
    if scheme == "file":
        return Folder(Path(rest))
    if scheme != "s3":
        raise StoreAway(f"no store is called {scheme}")
    from db.store.s3 import Bucket  # its client is loaded where there is a bucket

    return Bucket(name, settings)


def carrying(factory: sessionmaker[Session], stores: Stores) -> sessionmaker[Session]:
    """The same sessions, whose files may lie in `stores`, and new ones go where they say."""
    given: dict[str, Any] = {**factory.kw, "info": {**(factory.kw.get("info") or {}), INFO: stores}}
    return sessionmaker(**given)


def of(session: Session) -> Stores:
    """Those that the session carries. Raises StoreAway where it carries none: its process reads no files' bytes."""
    found: Stores | None = session.info.get(INFO)
    if found is None:
        raise StoreAway("this process has no store")
    return found
