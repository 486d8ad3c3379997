"""What was served, on its way to the database: written in the background, under each request's id. Knows no worker.

No answer waits for it. While the database is away it waits here, and is written once it is back; what an ambiguous
commit has written already is not counted twice.
"""

import threading
import time
from collections import Counter, defaultdict

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import security
from db.tenant import served
from db.tenant.served import Answered

log = structlog.get_logger("api.chat.ledger")
MOST = 100_000  # requests that wait to be written; beyond, the oldest are given up and said in the log
BATCH = 1000  # of a tenant in one statement


class Ledger:
    """One thread, started by the first request that is noted; writes every `seconds`."""

    def __init__(self, sessions: sessionmaker[Session], seconds: float) -> None:
        self._sessions, self._seconds = sessions, seconds
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._waiting: dict[str, dict[str, Answered]] = defaultdict(dict)  # by tenant, by request
        self._tokens: Counter[str] = Counter()
        self._since: dict[str, float] = {}  # by request, in order: time.monotonic() at which it was noted
        self._thread: threading.Thread | None = None
        self._ending = False

    def note(self, tenant: str, answered: Answered) -> None:
        """The request was served. Returns at once."""
        with self._lock:
            mine = self._waiting[tenant]
            if answered.request in mine:
                return
            mine[answered.request] = answered
            self._since[answered.request] = time.monotonic()
            self._tokens[tenant] += answered.prompt + answered.completion
            if len(self._since) > MOST:
                self._give_up()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="served", daemon=True)
                self._thread.start()

    def waiting(self, tenant: str) -> int:
        """Tokens of the tenant that are not written yet."""
        with self._lock:
            return self._tokens[tenant]

    @property
    def unwritten(self) -> int:
        """Requests that are not written yet, of all tenants."""
        with self._lock:
            return len(self._since)

    @property
    def behind(self) -> float:
        """Seconds that the oldest of them waits; 0 where none does."""
        with self._lock:
            return time.monotonic() - next(iter(self._since.values())) if self._since else 0.0

    def close(self) -> None:
        """Writes what there is, once, and ends."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10.0)
        if self.unwritten:
            log.error("served tokens were not written", requests=self.unwritten)

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._seconds)
            self._write()

    def _write(self) -> None:
        with self._lock:
            due = {tenant: list(each.values())[:BATCH] for tenant, each in self._waiting.items() if each}
        for tenant, answered in due.items():
            try:
                with security.transaction(self._sessions, tenant) as session:
                    served.commit(tenant, session, answered)
            except SQLAlchemyError as error:
                log.warning("served tokens wait for the database", error=type(error).__name__, requests=len(answered))
                return
            self._forget(tenant, answered)

    def _forget(self, tenant: str, written: list[Answered]) -> None:
        with self._lock:
            for one in written:
                self._since.pop(one.request, None)
                if self._waiting[tenant].pop(one.request, None) is not None:
                    self._tokens[tenant] -= one.prompt + one.completion
            if not self._waiting[tenant]:
                del self._waiting[tenant]
                self._tokens.pop(tenant, None)

    def _give_up(self) -> None:
        tenant = max(self._waiting, key=lambda who: len(self._waiting[who]))
        oldest = self._waiting[tenant].pop(next(iter(self._waiting[tenant])))
        del self._since[oldest.request]
        self._tokens[tenant] -= oldest.prompt + oldest.completion
        log.error("served tokens were given up: too many wait", request=oldest.request)
