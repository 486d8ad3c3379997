"""Work of seconds, outside of the threads that answer requests: once for all who ask, tenants in turn. Knows no file.

Work is a generator that yields often: it is advanced for `SLICE_SECONDS`, then it is the next tenant's turn.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")
Work = Callable[[], Generator[None, None, T]]
SLICE_SECONDS = 0.1
LOOK_SECONDS = 0.2  # how often who waits looks whether the process ends


class Crowded(Exception):
    """The tenant has `most` requests waiting already."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} requests are waiting for token counts")
        self.most = most


class Ending(Exception):
    """The process ends before the work does."""


@dataclass(frozen=True, eq=False)
class Waiter:
    """One request: whose, where its answer goes, and the work as it would do it."""

    tenant: str
    work: Work[Any]
    answer: "asyncio.Future[Any]"

    def tell(self, value: Any, error: BaseException | None = None) -> None:
        def done() -> None:
            if not self.answer.done():
                self.answer.set_result(value) if error is None else self.answer.set_exception(error)

        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits
            self.answer.get_loop().call_soon_threadsafe(done)


@dataclass(eq=False)
class Flight:
    """One piece of work and who waits for it; `pilot` is the waiter in whose name it is done."""

    key: Hashable
    waiters: list[Waiter] = field(default_factory=list)
    pilot: Waiter | None = None
    begun: Generator[None, None, Any] | None = None
    in_hand: bool = False  # a thread advances it now


class Flights:
    """`threads` threads share the work of all tenants, `at_once` pieces of it begun at most, which bounds memory; of a
    tenant `waiting` requests wait at most."""

    def __init__(self, threads: int, waiting: int, at_once: int) -> None:
        self._threads, self._most, self._at_once = threads, waiting, at_once
        self._changed = threading.Condition()
        self._flights: dict[Hashable, Flight] = {}
        self._turns: OrderedDict[str, deque[Flight]] = OrderedDict()  # tenants, the next one first
        self._waiting: Counter[str] = Counter()
        self._started = False

    async def result(self, key: Hashable, tenant: str, work: Work[T]) -> T:
        """What `work`, or that of whoever asked for `key` before, returns. Raises Crowded, and what the work raises.
        Who is cancelled waits no more; work that nobody waits for ends."""
        waiter = Waiter(tenant, work, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._waiting[tenant] >= self._most:
                raise Crowded(self._most)
            flight = self._flights.setdefault(key, Flight(key))
            flight.waiters.append(waiter)
            self._waiting[tenant] += 1
            queue = self._turns.setdefault(tenant, deque())
            if flight not in queue:
                queue.append(flight)
            self._start()
            self._changed.notify()
        try:
            answer: T = await waiter.answer
            return answer
        finally:
            with self._changed:
                self._waiting[tenant] -= 1
                self._waiting += Counter()  # without who waits for nothing
                self._leave(flight, waiter)

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return self._waiting.total()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for number in range(self._threads):
                threading.Thread(target=self._run, name=f"counting-{number}", daemon=True).start()

    def _leave(self, flight: Flight, waiter: Waiter) -> None:
        if waiter in flight.waiters:
            flight.waiters.remove(waiter)
        self._tidy(flight)

    def _tidy(self, flight: Flight) -> None:
        """Takes the flight from the queues of tenants who do not wait for it, and ends one that nobody waits for."""
        tenants = {waiter.tenant for waiter in flight.waiters}
        for tenant in [t for t, queue in self._turns.items() if flight in queue and t not in tenants]:
            self._turns[tenant].remove(flight)
            if not self._turns[tenant]:
                del self._turns[tenant]
        if not flight.waiters and not flight.in_hand:
            if flight.begun is not None:
                flight.begun.close()
                flight.begun = None
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            self._changed.notify()

    def _next(self) -> Flight | None:
        """The first flight that can be advanced, by tenants in turn."""
        full = sum(flight.begun is not None for flight in self._flights.values()) >= self._at_once
        for tenant, queue in self._turns.items():
            for flight in queue:
                if not flight.in_hand and not (full and flight.begun is None):
                    self._turns.move_to_end(tenant)
                    return flight
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                while (flight := self._next()) is None:
                    self._changed.wait()
                flight.in_hand = True
                if flight.begun is None:
                    flight.pilot = flight.waiters[0]
                    flight.begun = flight.pilot.work()
            end = _advance(flight)
            with self._changed:
                flight.in_hand = False
                if end is not None:
                    self._land(flight, *end)
                self._tidy(flight)
                self._changed.notify()

    def _land(self, flight: Flight, value: Any, error: BaseException | None) -> None:
        """Tells those who wait. An error is told to the tenant whose work it was: others try their own."""
        told = [w for w in flight.waiters if error is None or flight.pilot is None or w.tenant == flight.pilot.tenant]
        for waiter in told:
            flight.waiters.remove(waiter)
            waiter.tell(value, error)
        flight.begun = None


def _advance(flight: Flight) -> tuple[Any, BaseException | None] | None:
    """A slice of the work: its value or its error once it has ended."""
    assert flight.begun is not None
    until = time.monotonic() + SLICE_SECONDS
    try:
        while time.monotonic() < until and flight.waiters:
            next(flight.begun)
    except StopIteration as end:
        return end.value, None
    except BaseException as error:  # told to who waits
        return None, error
    return None


async def attended(request: Request, ending: threading.Event, work: Coroutine[Any, Any, T]) -> T:
    """`work`, as long as the client is there and the process goes on. Raises ClientDisconnect, Ending. The request's
    body must have been read."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        while True:
            await asyncio.wait({doing, leaving}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if leaving.done():
                raise ClientDisconnect
            if ending.is_set():
                raise Ending
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
