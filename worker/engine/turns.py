"""Whose turn it is: one engine, and one at a time who uses it, for a wave of scoring or a step of serving. Knows
threads, no engine, no trials and no requests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final, Literal

Use = Literal["serving", "scoring"]
ORDER: Final[tuple[Use, ...]] = ("serving", "scoring")  # who goes first where both wait: a request's reader is a person


class Turns:
    """The right to use one engine. A turn is as long as one forward pass may be, so that whoever waits, waits for that.

    Where several wait, serving goes before scoring, and within one use who came first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: tuple[Use, int] | None = None  # what for, which thread
        self._waiting: set[tuple[int, int]] = set()  # (place in ORDER, number): the least is next
        self._numbers = count()

    @contextmanager
    def taken(self, use: Use) -> Iterator[None]:
        """Within this the engine is this thread's. Waits for its turn; raises RuntimeError for a thread that has it
        already, which would wait for itself."""
        self._take(use)
        try:
            yield
        finally:
            with self._changed:
                self._holder = None
                self._changed.notify_all()

    def demand(self, use: Use) -> None:
        """Raises RuntimeError where this thread has no turn for this use: what uses the engine asks, so that nothing
        goes past the queue."""
        if self._holder != (use, threading.get_ident()):
            raise RuntimeError(f"{use} without a turn of its own")

    def _take(self, use: Use) -> None:
        me = use, threading.get_ident()
        with self._changed:
            if self._holder is not None and self._holder[1] == me[1]:
                raise RuntimeError(f"a turn within a turn: this thread has the engine for {self._holder[0]}")
            mine = ORDER.index(use), next(self._numbers)
            self._waiting.add(mine)
            try:
                self._changed.wait_for(lambda: self._holder is None and min(self._waiting) == mine)
                self._holder = me
            finally:  # also where a signal ends the wait: the next must not wait for who is gone
                self._waiting.remove(mine)
                self._changed.notify_all()
