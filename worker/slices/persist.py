"""Writes that are tried again while the database is away. Knows a lost connection, not what is written."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

log = structlog.get_logger("worker.slices.persist")
T = TypeVar("T")
UNREACHABLE = (OperationalError, InterfaceError, PoolTimeout)
BACK_OFF = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before the second try, the third, …


@dataclass(frozen=True)
class Clock:
    """Seconds as they pass for a worker; a test brings its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


def persist(act: Callable[[], T], until: Callable[[], float], clock: Clock = CLOCK) -> T:
    """act(), tried again while the database cannot be reached and `until()` (on `clock`) lies ahead.

    At least one try is made. What `act` writes must carry the fencing token: a try whose answer was lost may have been
    committed, and only the token and the journal's step numbers keep the next one from counting twice. Raises
    LeaseLost, and the last OperationalError or InterfaceError when time is up.
    """
    tries = 0
    while True:
        try:
            return act()
        except UNREACHABLE as error:
            pause = BACK_OFF[min(tries, len(BACK_OFF) - 1)]
            tries += 1
            if clock.now() + pause > until():
                raise
            if tries == 1:
                log.warning("database unreachable, trying again", error=str(error).partition("\n")[0])
            clock.sleep(pause)
