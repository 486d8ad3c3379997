"""What was read last, for while the database is away. Knows no table."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar, cast

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

log = structlog.get_logger("api.memory")
T = TypeVar("T")
AWAY: Final = (OperationalError, InterfaceError, NoConnection)
MOST: Final = 20_000  # things remembered
AGAIN_SECONDS: Final = 1.0  # between readings while the database is away: it may take seconds to say so


class Memory:
    """Answers come from the database while it answers. While it does not, what it said of a thing within `seconds` is
    taken for so; of anything else its error is raised."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._away_until = 0.0

    def through(self, key: Hashable, read: Callable[[], T]) -> T:
        """What `read` returns, or while the database is away what it returned for `key` before. None is not kept.
        Raises what `read` does."""
        now = self._clock()
        known = self._recalled(key, now)
        if known is not None and now < self._away_until:
            return cast(T, known[1])
        try:
            value = read()
        except AWAY as error:
            self._away(now, error)
            if known is None:
                raise
            return cast(T, known[1])
        self._away_until = 0.0
        self._keep(key, now, value)
        return value

    def _recalled(self, key: Hashable, now: float) -> tuple[float, Any] | None:
        with self._lock:
            known = self._kept.get(key)
        return known if known is not None and now - known[0] <= self._seconds else None

    def _keep(self, key: Hashable, now: float, value: Any) -> None:
        with self._lock:
            self._kept.pop(key, None)
            if value is not None and self._seconds:
                self._kept[key] = now, value
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def _away(self, now: float, error: Exception) -> None:
        if not self._away_until:
            log.warning("the database is away: what is known serves", error=type(error).__name__)
        self._away_until = now + AGAIN_SECONDS
