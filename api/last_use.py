"""When a key was last used: written in the background, once a minute a key, and no request waits. Knows no request."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import security
from db.tenant import keys

log = structlog.get_logger("api.last_use")


class LastUse:
    """One thread, started by the first key. A key is noted again after `every` seconds; what could not be written is
    known again at the next note."""

    def __init__(self, every: float = keys.USED_EVERY.total_seconds()) -> None:
        self.every = every
        self._noted: dict[str, float] = {}  # by key: only good ones come here, so it grows no further than their table
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "last-use")

    def note(self, sessions: sessionmaker[Session], key: str, tenant: str | None, digest: bytes = b"") -> bool:
        """`key`, of `tenant` or with this SHA-256, is used now. Returns at once; False: it was noted a moment ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._noted.get(key, -self.every) < self.every:
                return False
            self._noted[key] = now
        self._pool.submit(_write, sessions, key, tenant, digest)
        return True


def _write(sessions: sessionmaker[Session], key: str, tenant: str | None, digest: bytes) -> None:
    try:
        with security.transaction(sessions, tenant or "") as session:
            security.present(session, digest)  # an operator's key is no tenant's row
            keys.mark_used(session, key)
    except SQLAlchemyError as error:
        log.warning("last use not written", key=key, error=type(error).__name__)
