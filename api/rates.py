"""How much a tenant or an address may ask for in a minute: counted in Valkey for all processes. Knows no request.

Valkey away, this process counts alone: each process then allows the whole limit, and nobody is refused for an outage.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger("api.rates")
Kind = Literal["requests", "jobs", "bytes", "keys", "tokens"]
SOCKET_SECONDS = 0.2  # what a Valkey that does not answer costs one request, once in `retry_seconds`
KNOWN = 4096  # keys that were good, remembered for when their address has sent too many wrong ones
MINUTE = 60
BLOCKS = 200  # in which a tenant's requests of a minute are drawn from Valkey, at most


@dataclass(frozen=True)
class Taken:
    """`before` was taken of `limit` in this minute when this was asked for, `now` with it. The minute ends in `reset`
    seconds."""

    kind: Kind
    limit: int
    before: int
    now: int
    reset: float

    @property
    def over(self) -> bool:
        return self.now > self.limit

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI's, of requests and of tokens."""
        return {
            f"x-ratelimit-limit-{self.kind}": str(self.limit),
            f"x-ratelimit-remaining-{self.kind}": str(max(self.limit - self.now, 0)),
            f"x-ratelimit-reset-{self.kind}": f"{math.ceil(self.reset)}s",
        }


class Exceeded(Exception):
    """Too much of `taken.kind` in this minute."""

    def __init__(self, taken: Taken) -> None:
        super().__init__(f"{taken.limit} {taken.kind} a minute")
        self.taken = taken


class Rates:
    """Whole minutes of the clock, so that one command counts and tells what is left. Requests are drawn in blocks, half
    a hundredth of the limit each. A Valkey that fails or is slow is
    left alone for `retry_seconds`, then one request tries it."""

    def __init__(self, redis_url: str, retry_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._url, self._retry, self._clock = redis_url, retry_seconds, clock
        self._far: RedisStorage | None = None
        self._near = MemoryStorage()
        self._lock, self._away_until = threading.Lock(), 0.0
        self._closed: dict[str, float] = {}  # addresses, and when they may try keys again
        self._blocks: dict[str, tuple[str, int, int]] = {}  # of a tenant: minute, last number given, end
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def take(self, kind: Kind, who: str, limit: int, amount: int = 1) -> Taken:
        """Counts `amount` for `who`, whether it is over `limit` or not."""
        now = self._clock()
        minute = int(now // MINUTE)
        key = self._key(kind, who, limit, minute)
        total = self._one(key, who, limit // BLOCKS) if kind == "requests" else self._count(key, amount)
        return Taken(kind, limit, total - amount, total, (minute + 1) * MINUTE - now)

    def at_hand(self, who: str, limit: int) -> Taken | None:
        """One request charged to `who`, as `charge` does, where this process has a number for it: without Valkey, so
        without waiting. None, and nothing charged, where it has none. Raises Exceeded."""
        now = self._clock()
        minute = int(now // MINUTE)
        number = self._next(self._key("requests", who, limit, minute), who)
        if number is None:
            return None
        taken = Taken("requests", limit, number - 1, number, (minute + 1) * MINUTE - now)
        if taken.over:
            raise Exceeded(taken)
        return taken

    @staticmethod
    def _key(kind: Kind, who: str, limit: int, minute: int) -> str:
        item = RateLimitItemPerMinute(max(limit, 1), namespace="onward")
        return item.key_for(kind, who, str(minute))

    def _next(self, key: str, who: str) -> int | None:
        """The next number of the block that was drawn for `key`, while it lasts."""
        with self._lock:
            drawn, last, end = self._blocks.get(who, ("", 0, 0))
            if drawn != key or last >= end:
                return None
            self._blocks[who] = key, last + 1, end
            return last + 1

    def _one(self, key: str, who: str, size: int) -> int:
        """The number of one request in its minute, from a block of `size` numbers that this process has drawn: a large
        limit need not ask Valkey each time. Numbers are given once; what is left of a block at a minute's end is lost,
        and so is part of one where two requests draw at once."""
        if size <= 1:
            return self._count(key, 1)
        if (number := self._next(key, who)) is not None:
            return number
        end = self._count(key, size)
        with self._lock:
            if len(self._blocks) >= KNOWN:
                self._blocks.clear()
            self._blocks[who] = key, end - size + 1, end
        return end - size + 1

    def charge(self, kind: Kind, who: str, limit: int, amount: int = 1, *, whole: bool = False) -> Taken | None:
        """As `take`; raises Exceeded. `whole`: one that begins within the limit passes, however large. A limit of 0 is
        none: nothing is counted."""
        if not limit:
            return None
        taken = self.take(kind, who, limit, amount)
        if taken.before >= limit if whole else taken.over:
            raise Exceeded(taken)
        return taken

    def may_try(self, address: str, key: bytes, limit: int) -> None:
        """Raises Exceeded where `address` has sent too many wrong keys and `key` (its hash) was not good before."""
        until = self._closed.get(address)
        if until is None or not limit:
            return
        now = self._clock()
        if now >= until:
            self._closed.pop(address, None)
        elif key not in self._good:
            raise Exceeded(Taken("keys", limit, limit, limit, until - now))

    def wrong_key(self, address: str, limit: int) -> None:
        """Counts a key that was none. Raises Exceeded, and closes the address, beyond `limit`."""
        try:
            self.charge("keys", address, limit)
        except Exceeded as error:
            if len(self._closed) >= KNOWN:
                self._closed.clear()
            self._closed[address] = self._clock() + error.taken.reset
            raise

    def good_key(self, key: bytes) -> None:
        with self._lock:
            self._good[key] = None
            self._good.move_to_end(key)
            if len(self._good) > KNOWN:
                self._good.popitem(last=False)

    def _count(self, key: str, amount: int) -> int:
        if self._reachable():
            began = time.monotonic()
            try:
                total = self._storage().incr(key, MINUTE, amount)
            except Exception as error:  # whatever a broker does, requests go on
                self._leave_alone(repr(error))
            else:
                if time.monotonic() - began > SOCKET_SECONDS:
                    self._leave_alone("slow")
                elif self._away_until:
                    self._away_until = 0.0
                    log.info("counting together again")
                return total
        return self._near.incr(key, MINUTE, amount)

    def _reachable(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._away_until:
                return False
            if self._away_until:
                self._away_until = now + self._retry  # this request tries, others do not
            return True

    def _leave_alone(self, why: str) -> None:
        with self._lock:
            fresh = not self._away_until
            self._away_until = time.monotonic() + self._retry
        if fresh:
            log.warning("counting alone", error=why)

    def _storage(self) -> RedisStorage:
        if self._far is None:
            wait = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS}
            self._far = RedisStorage(self._url, retry=Retry(NoBackoff(), 0), **wait)  # type: ignore[arg-type]
        return self._far
